"""Everything that is wrong with one contract file, reported at once and by place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etl_resources.exceptions import ConfigurationError

Place = tuple[str | int, ...]
"""Keys and indices from the root of the document."""


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known word nearest to `word`, or the empty string."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def listed(words: Iterable[str]) -> str:
    """Return words as `a, b or c`."""
    *head, last = words
    return f"{', '.join(head)} or {last}" if head else last


@dataclass
class Mistakes:
    """The mistakes of one file, in the order of the file once reported."""

    file: Path
    text: str
    document: Any
    found: dict[tuple[Place, str], None] = field(default_factory=dict)

    def add(self, place: Place, message: str) -> None:
        """Note a mistake; the same one twice is one."""
        self.found[place, message] = None

    def touch(self, place: Place) -> bool:
        """Whether there is a mistake at `place` or below it."""
        return any(other[: len(place)] == place for other, _ in self.found)

    def report(self) -> None:
        """Raise if there is any.

        Raises:
            ConfigurationError: with each mistake, its line and its place in the YAML.
        """
        if not self.found:
            return
        import yaml

        root = yaml.compose(self.text, Loader=yaml.CSafeLoader) if self.document is not None else None
        entries = sorted((_line(root, place), self._readable(place), message) for place, message in self.found)
        count = "1 mistake" if len(entries) == 1 else f"{len(entries)} mistakes"
        lines = [f"  line {line}, {place}: {message}" for line, place, message in entries]
        raise ConfigurationError(
            "\n".join([f"{count} in the contract {self.file.name}", *lines]),
            where=str(self.file),
            fix="correct these lines; docs/contracts.md says how each thing is written",
        )

    def _readable(self, place: Place) -> str:
        """Render a place as `schema[orders].properties[email].required`, entries of lists by their name."""
        node, text = self.document, ""
        for step in place:
            node = _child(node, step)
            if isinstance(step, str):
                text += f".{step}" if text else step
            else:
                label = (node.get("name") or node.get("id") or node.get("property")) if isinstance(node, dict) else None
                text += f"[{label if isinstance(label, str) else step}]"
        return text or "the file"


def _child(node: Any, step: str | int) -> Any:
    try:
        return node[step]
    except (KeyError, IndexError, TypeError):
        return None


def _line(node: Any, place: Place) -> int:
    """Return the line (1-based) of the deepest part of `place` that the file has."""
    line = node.start_mark.line if node is not None else 0
    for step in place:
        children: list[tuple[Any, Any, Any]] = []
        if isinstance(node.value, list) and node.id == "mapping":
            children = [(key.value, value, key) for key, value in node.value]
        elif isinstance(node.value, list):
            children = [(index, value, value) for index, value in enumerate(node.value)]
        match = next(((value, marked) for name, value, marked in children if name == step), None)
        if match is None:
            break
        node, marked = match
        line = marked.start_mark.line
    return line + 1
