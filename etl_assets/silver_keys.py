"""Which keys come more than once in a load. Nearly every load has each key once, and finding that out must cost little.

Equal keys have equal hashes, and sorting numbers costs a tenth of grouping rows. Only where a hash comes twice are the
keys themselves compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from etl_assets.silver_fates import Versions
    from etl_resources.engines.duckdb import Session

HASHES = 16 * 2**20
"""Hashes in memory at once, 8 bytes each; of more rows they are looked at in several passes."""
TWICE = "repeated_hashes"


def find_repeated(session: Session, versions: Versions, relation: str, rows: int) -> None:
    """Create `repeated`: the keys, without any NULL, that more than one row of `relation` has.

    Args:
        relation: SQL after FROM with the key columns; read once, and once more where keys repeat.
        rows: about how many rows it has; bounds the memory, not the result.
    """
    keys, complete = versions.keys("j"), versions.complete("j")
    hashed, passes = f"hash({keys})", -(-rows // HASHES) or 1
    found = []
    for number in range(passes):
        part = f" AND {hashed} % {passes} = {number}" if passes > 1 else ""
        sql = f"SELECT {hashed} AS h FROM {relation} j WHERE {complete}{part}"  # noqa: S608
        found.append(_repeated(session.stream(sql)))
    twice = _column(found)
    again = "false"
    if len(twice):
        session.connection.register(TWICE, twice)
        again = f"{hashed} IN (SELECT h FROM {TWICE})"  # noqa: S608
    session.execute(
        f"CREATE OR REPLACE TEMP TABLE repeated AS SELECT {keys} FROM {relation} j "  # noqa: S608
        f"WHERE {complete} AND {again} GROUP BY {keys} HAVING count(*) > 1"
    )


def _repeated(reader: pa.RecordBatchReader) -> npt.NDArray[np.uint64]:
    """Return every hash that comes more than once, in order."""
    import numpy as np

    parts = [batch.column(0).to_numpy() for batch in reader]
    hashes = np.concatenate(parts) if parts else np.empty(0, np.uint64)
    hashes.sort()
    again = hashes[1:][hashes[1:] == hashes[:-1]]
    return np.unique(again)


def _column(hashes: list[npt.NDArray[np.uint64]]) -> pa.Table:
    import pyarrow as pa

    return pa.table({"h": pa.chunked_array([pa.array(part) for part in hashes], pa.uint64())})
