"""logfmt: `key=value key="quoted value" flag`, one entry per line, whatever keys there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from etl_resources.engines.duckdb import literal
from etl_resources.files.chunks import Chunk
from etl_resources.files.csv_records import Block
from etl_resources.logs.database import Database
from etl_resources.logs.entries import entries_of
from etl_resources.logs.formats import Column
from etl_resources.logs.parse import Found, utf8, why, with_lines_field
from etl_resources.logs.values import Values

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_KEY = r'[^\s="]+'
_VALUE = r'"(?:[^"\\]|\\.)*"|[^\s"]*'
_PAIR = rf"({_KEY})(?:=({_VALUE}))?"
_LINE = rf"^\s*{_KEY}(?:=(?:{_VALUE}))?(?:\s+{_KEY}(?:=(?:{_VALUE}))?)*\s*$"
_MOST_COLUMNS = 1000


@dataclass
class LogfmtParser:
    """Parses logfmt. Values are text, those of `declared` columns of their type; keys become columns."""

    declared: Mapping[str, pa.DataType]
    time_formats: Mapping[str, str]
    zone: str
    encoding: str = "utf-8"
    line_column: str | None = None
    start: str | None = None
    database: Database = field(default_factory=Database)

    def schema(self) -> pa.Schema:
        """Return the columns that are declared; what else there is, the log tells."""
        values = self._values(list(self.declared))
        return with_lines_field(values.schema(), self.line_column)

    def parse(self, block: Block, at: datetime) -> Chunk:
        """Parse whole lines; the columns are the keys that are in them, and those that are declared."""
        import pyarrow as pa
        import pyarrow.compute as pc

        entries = entries_of(utf8(block.data, self.encoding), block.line, None)
        text = entries.text
        fits = pc.and_(pc.match_substring_regex(text, _LINE), pc.match_substring(text, "=")).fill_null(False)  # noqa: FBT003
        reasons = [why(pc.invert(fits), "no logfmt: key=value expected, separated by spaces")]
        rows, keys, found = _pairs(pc.if_else(fits, text, ""), self.database)
        texts, doubled = _columns(rows, keys, found, len(text), list(self.declared))
        reasons += [why(pa.array(mask), reason) for mask, reason in doubled]
        table, misfits = self._values(list(texts)).typed(texts, at)
        return Found(table, entries, [*reasons, *misfits], block.records).chunk(self.encoding, self.line_column)

    def _values(self, names: list[str]) -> Values:
        return Values(
            [Column(n, nothing=()) for n in names], self.declared, self.time_formats, self.zone, self.database
        )


def _pairs(text: Any, database: Database) -> tuple[NDArray[np.int64], Any, Any]:
    """Return row, key and value of every pair; a key without a value is `true`."""
    import pyarrow as pa

    # A quoted value is written as JSON writes a string; one that JSON does not know stays as it is.
    sql = f"""
        WITH found AS (SELECT row, unnest(regexp_extract_all(text, {literal(_PAIR)}, 0)) AS pair FROM texts),
        parts AS (SELECT row, regexp_extract(pair, '^{_KEY}') AS key, pair FROM found),
        valued AS (SELECT row, key, CASE WHEN len(key) = len(pair) THEN 'true' ELSE pair[len(key) + 2:] END AS value
            FROM parts)
        SELECT row, key, CASE WHEN value[1:1] = '"' THEN coalesce(TRY_CAST(value AS JSON) ->> '$', value[2:-2])
            ELSE value END AS value FROM valued
    """  # noqa: S608 - the pattern is a constant
    table = database.table(sql, {"row": pa.array(range(len(text)), pa.int64()), "text": text})
    return (
        table.column("row").to_numpy(),
        table.column("key").combine_chunks(),
        table.column("value").combine_chunks(),
    )


def _columns(
    rows: NDArray[np.int64], keys: Any, values: Any, size: int, declared: list[str]
) -> tuple[dict[str, Any], list[tuple[NDArray[np.bool_], str]]]:
    """Return the text of every key by row, and where a key cannot be taken, with the reason."""
    import numpy as np
    import pyarrow as pa

    encoded = keys.dictionary_encode()
    names, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    cuts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    texts: dict[str, Any] = {name: pa.nulls(size, pa.string()) for name in declared}
    folded = {name.casefold(): name for name in declared}
    refused = []
    for n, name in enumerate(names):
        at = order[cuts[n] : cuts[n + 1]]
        here, again = np.unique(rows[at], return_counts=True)
        if (again > 1).any():
            refused.append((_mask(here[again > 1], size), f"key {name} comes twice"))
        twin = folded.setdefault(name.casefold(), name)
        if twin != name or len(texts) >= _MOST_COLUMNS:
            reason = f"key {name} differs from {twin} in case only" if twin != name else f"key {name}: too many keys"
            refused.append((_mask(here, size), reason))
            continue
        source = np.full(size, -1, np.int64)
        source[rows[at]] = at
        texts[name] = values.take(pa.array(source, mask=source < 0))
    return texts, refused


def _mask(rows: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    import numpy as np

    mask = np.zeros(size, bool)
    mask[rows] = True
    return mask
