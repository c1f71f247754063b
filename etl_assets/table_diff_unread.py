"""Rows that a source has and cannot give: their keys must not be taken for gone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from etl_resources.engines.duckdb import quote
from etl_resources.source import unreadable_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.engines.duckdb import Session

MOST = 100_000
"""Unreadable rows whose keys are kept; of more, nobody knows them."""
TEXTLESS = ("BLOB", "BIT")
"""Types whose text in JSON is not that of the engine."""


class Unread:
    """The keys of unreadable rows, as far as they can be told, in the table `withheld`."""

    def __init__(self, session: Session, key: Sequence[str]) -> None:
        self.session, self.key = session, tuple(key)
        self.nameless = 0
        """Rows of which nobody knows the key."""
        self.rows_kept = 0
        self._texts: list[list[str | None]] = []
        session.execute("CREATE TEMP TABLE unreadable (reason VARCHAR, raw BLOB, origin VARCHAR, line BIGINT)")

    def add(self, unreadable: pa.RecordBatch) -> None:
        """Keep rows in `unreadable_schema()`."""
        if len(self._texts) < MOST:
            self._texts += self._texts_of(unreadable)
        self.session.connection.register("_unreadable", unreadable)
        self.session.execute("INSERT INTO unreadable SELECT reason, raw, origin, line FROM _unreadable")

    def add_wanted(self, unreadable: pa.RecordBatch, wanted: str) -> None:
        """Keep those rows whose key is in the relation `wanted`, or nobody knows."""
        self.table("perhaps", wanted, self._texts_of(unreadable))
        same = " AND ".join(f"p.{quote(name)} = w.{quote(name)}" for name in self.key)
        other = self.session.execute(f"SELECT __at FROM perhaps p ANTI JOIN ({wanted}) w ON {same} WHERE {self._known}")  # noqa: S608
        dropped = {at for (at,) in other}
        self.add(unreadable.take([at for at in range(unreadable.num_rows) if at not in dropped]))

    def _texts_of(self, unreadable: pa.RecordBatch) -> list[list[str | None]]:
        return [_key_of(raw, self.key) for raw in unreadable["raw"].to_pylist()]

    @property
    def _known(self) -> str:
        return " AND ".join(f"{quote(name)} IS NOT NULL" for name in self.key)

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Yield what was kept, in `unreadable_schema()`."""
        from etl_resources.delta.evolution import conform

        for batch in self.session.stream("SELECT * FROM unreadable"):
            yield conform(batch, unreadable_schema(), where="unreadable rows")

    def settle(self, relation: str) -> None:
        """Make the table `withheld`, with the types that the key has in the query `relation`."""
        self.table("withheld", relation, self._texts)
        (known,) = self.session.execute(f"SELECT count(*) FROM withheld WHERE {self._known}")[0]  # noqa: S608
        (self.rows_kept,) = self.session.execute("SELECT count(*) FROM unreadable")[0]
        self.nameless = self.rows_kept - known

    def table(self, name: str, relation: str, texts: Sequence[Sequence[str | None]]) -> None:
        """Make a table of keys in the types of a query, null where the text is not one.

        `__at` tells which of the texts it was.
        """
        import pyarrow as pa

        types = self.session.types(f"({relation})")
        columns = {column: pa.array([text[at] for text in texts], pa.string()) for at, column in enumerate(self.key)}
        self.session.connection.register(
            "_texts", pa.table({**columns, "__at": pa.array(range(len(texts)), pa.int64())})
        )
        casts = ", ".join(f"{_cast(column, types[column])} AS {quote(column)}" for column in self.key)
        self.session.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT {casts}, __at FROM _texts")  # noqa: S608


def _cast(column: str, kind: str) -> str:
    return f"NULL::{kind}" if kind in TEXTLESS else f"TRY_CAST({quote(column)} AS {kind})"


def _key_of(raw: bytes | None, key: Sequence[str]) -> list[str | None]:
    try:
        record = json.loads(raw or b"")
    except ValueError:
        record = None
    if not isinstance(record, dict):
        return [None for _ in key]
    values = [record.get(name) for name in key]
    return [None if value is None or isinstance(value, dict | list) else str(value) for value in values]
