"""Wrong usage: what was typed names something that is not there, or asks for what cannot be done."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from etl_resources.exceptions import ConfigurationError


class WrongUsage(ConfigurationError):  # noqa: N818 - a ConfigurationError by another exit code
    """The command was called wrongly; ends with exit code 2 instead of 1."""


def unknown(what: str, name: str, known: Iterable[str], *, where: str = "") -> WrongUsage:
    """Return the error for a name that is not there, with the nearest one that is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listed = f"known: {', '.join(names)}" if names else "there is none yet"
    fix = f"did you mean {near[0]!r}? {listed}" if near else listed
    return WrongUsage(f"there is no {what} {name!r}", where=where, fix=fix)
