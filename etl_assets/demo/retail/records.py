"""Which record of a file is a version of which thing, and what fate it must get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from etl_assets.demo.retail.columns import Flags, Ints, deal

KEPT, SUPERSEDED, UNREADABLE = "kept", "superseded", "unreadable"

_VERSIONED, _COPIED, _SPOILED = "has a newer version", "has a copy", "has a newer version that is rejected"
VERSION, COPY, BAD_VERSION = "newer version", "copy", "newer version that is rejected"


@dataclass(frozen=True)
class Records:
    """The records of one file, in the order in which they are written."""

    thing: Ints
    """Index of the customer, product or sale that the record describes; a thing may have several records."""
    kind: npt.NDArray[np.str_]
    """What is the matter with the record."""
    fate: npt.NDArray[np.str_]
    things: int

    def are(self, *kinds: str) -> Flags:
        """Tell which records are of these kinds."""
        return np.isin(self.kind, kinds)

    @property
    def kept(self) -> Flags:
        """Tell which records must be in silver."""
        return self.fate == KEPT


def lay_out(
    rng: np.random.Generator,
    rows: int,
    kinds: Mapping[str, tuple[float, str]],
    *,
    bad_version: str,
    versions: float = 0.01,
    copies: float = 0.004,
) -> Records:
    """Lay out `rows` records at random: `kinds` names each kind of record with its share and its fate.

    Besides them some things have a newer version (share `versions`), an identical copy (`copies`) or a newer version
    with a defect, which gets the fate `bad_version`. Every kind occurs at least once; what is left is kept.
    """
    versioned, copied, spoiled = (max(1, round(share * rows)) for share in (versions, copies, copies / 4))
    things = rows - versioned - copied - spoiled
    shares = {kind: share for kind, (share, _) in kinds.items()}
    bases = {_VERSIONED: versioned / things, _COPIED: copied / things, _SPOILED: spoiled / things}
    base = deal(rng, things, shares | bases, rest=KEPT)
    seconds = [np.flatnonzero(base == kind) for kind in (_VERSIONED, _COPIED, _SPOILED)]
    order = rng.permutation(rows)
    thing = np.concatenate([np.arange(things), *seconds])[order]
    second_kinds = np.repeat([VERSION, COPY, BAD_VERSION], [len(found) for found in seconds])
    kind = np.concatenate([base, second_kinds])[order]
    fates = {name: fate for name, (_, fate) in kinds.items()}
    fates |= {_VERSIONED: SUPERSEDED, BAD_VERSION: bad_version}
    fate = np.array([fates.get(name, KEPT) for name in np.unique(kind)])[np.unique(kind, return_inverse=True)[1]]
    fate = _supersede_first_of_copies(thing, np.isin(kind, (_COPIED, COPY)), fate)
    return Records(thing=thing, kind=kind, fate=fate, things=things)


def _supersede_first_of_copies(thing: Ints, in_pair: Flags, fate: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    # Of two records with the same key and the same time, the one that arrives later is the newest.
    positions = np.flatnonzero(in_pair)
    first = positions[np.unique(thing[positions], return_index=True)[1]]
    result = fate.astype(np.result_type(fate, np.array([SUPERSEDED])))
    result[first] = SUPERSEDED
    return result
