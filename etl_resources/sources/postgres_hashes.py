"""PostgreSQL hashes its rows: only keys and hashes are moved, and then the rows that differ, out of the same snapshot.

`hash_record_extended` is the fastest hash that the server has, five times as fast as md5 over the text of the row. It
takes for equal what the types' own equality takes for equal, and that is more than a reader would: 1.0 and 1.00, -0.0
and 0.0, '24 hours' and '1 day', what a collation ignores. And it does not look at all of a value: a numeric hashes as
its negative does, -5 as 4294967291, because an int8 and a timestamp are folded to 32 bits first. So each column is
hashed in a form of which that is not true.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from etl_resources.hashed import HASH, HashedTable
from etl_resources.postgres_sql import literal, quote
from etl_resources.tables import column_named

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.hashed import Records
    from etl_resources.postgres_session import Session
    from etl_resources.sources.postgres import Plan, PostgresSource
    from etl_resources.sources.postgres_columns import Column
    from etl_resources.sources.postgres_types import Type

PICKED = 20_000
"""Keys per query."""
RECORDS_SINCE = 14
"""Version of the server since which it hashes records; before, it hashes their text."""
_SAME = frozenset({"bool", "int2", "int4", "oid", "uuid", "date", "bytea"})
"""Types whose values are equal only if they look the same, and whose hash looks at the whole value."""
_SENT = {
    "int8": "int8send", "float4": "float4send", "float8": "float8send", "numeric": "numeric_send",
    "timestamp": "timestamp_send", "timestamptz": "timestamptz_send",
}  # fmt: skip
"""Types that are hashed as the bytes that the server sends, which tell all values apart."""
_TEXTS = frozenset({"text", "varchar", "name"})
_KEYS = _SAME - {"bytea"} | _TEXTS | {"int8", "numeric", "timestamp", "timestamptz"}
"""Types of which the text of a key can be given back to the server."""
_PROBE = "ROW(1::int8, 'etl'::text COLLATE \"C\", 1.5::numeric, timestamptz 'epoch', '\\x01'::bytea)"


@contextmanager
def opened(source: PostgresSource, plan: Plan, key: Sequence[str], batch_bytes: int) -> Iterator[PostgresHashes]:
    """Begin a transaction that sees one snapshot of a stream."""
    from etl_resources.sources.postgres_columns import unambiguous
    from etl_resources.sources.postgres_horizon import take

    with source.session() as session:
        position = take(session, None).horizon.to_position()
        session.rows(unambiguous(local=True))
        yield PostgresHashes(session, plan, key, position, batch_bytes)


class PostgresHashes(HashedTable):
    """The rows of a table or query within one transaction."""

    def __init__(
        self, session: Session, plan: Plan, key: Sequence[str], position: dict[str, object], batch_bytes: int
    ) -> None:
        self.session, self.plan, self.position, self.batch_bytes = session, plan, position, batch_bytes
        self.schema = plan.schema()
        self.key = [column_named(name, plan.columns, plan.where) for name in key]
        version = int(session.value("SELECT current_setting('server_version_num')")) // 10_000
        forms = [hashed_form(column) for column in plan.columns]
        whole = (
            "hash_record_extended({}, 0)" if version >= RECORDS_SINCE else 'hashtextextended({}::text COLLATE "C", 0)'
        )
        self.hash = whole.format(f"ROW({', '.join(forms)})")
        # Another architecture, or a server that was built in another way, may hash to other values.
        probe = session.value(f"SELECT {whole.format(_PROBE)}")
        names = [f"{column.name} {column.type} {form}" for column, form in zip(plan.columns, forms, strict=True)]
        told = "\n".join([f"postgresql {version} {probe} {whole}", *names])
        self.hashed_by = f"postgresql {version} {hashlib.blake2b(told.encode(), digest_size=16).hexdigest()}"

    def count(self) -> int:
        """Return the number of rows."""
        return int(self.session.value(f"SELECT count(*) FROM {self.plan.relation} AS t"))  # noqa: S608

    def hashes(self, batch_rows: int) -> Iterator[Records]:
        """Yield the key columns and `_hash` of every row."""
        return self._read(self.key, "", batch_rows)

    def rows(self, batch_rows: int) -> Iterator[Records]:
        """Yield every row, with `_hash`."""
        return self._read(self.plan.columns, "", batch_rows)

    def pick(self, keys: pa.Table, batch_rows: int) -> Iterator[Records] | None:
        """Yield the rows of some keys, found by an index if there is one."""
        types = [_type_of_key(column.type) for column in self.key]
        if None in types:
            return None
        return self._picked(keys, [str(name) for name in types], batch_rows)

    def _picked(self, keys: pa.Table, types: Sequence[str], batch_rows: int) -> Iterator[Records]:
        names = ", ".join(f"k{at}" for at in range(len(types)))
        same = " AND ".join(f"t.{quote(column.name)} = k.k{at}" for at, column in enumerate(self.key))
        for start in range(0, keys.num_rows, PICKED):
            part = keys.slice(start, PICKED)
            arrays = ", ".join(
                f"{_array(part[column.name])}::{name}[]" for column, name in zip(self.key, types, strict=True)
            )
            yield from self._read(self.plan.columns, f" JOIN unnest({arrays}) AS k({names}) ON {same}", batch_rows)

    def _read(self, columns: Sequence[Column], joined: str, batch_rows: int) -> Iterator[Records]:
        import pyarrow as pa

        from etl_resources.sources.postgres import select_list
        from etl_resources.sources.postgres_columns import Column
        from etl_resources.sources.postgres_values import finish

        own = [*columns, Column(HASH, self.hash, pa.int64())]
        query = f"SELECT {select_list(own)} FROM {self.plan.relation} AS t{joined}"  # noqa: S608 - all names are quoted
        with self.session.stream(query, batch_bytes=self.batch_bytes) as stream:
            for batch in stream:
                for start in range(0, batch.num_rows, batch_rows):
                    yield finish(batch.slice(start, batch_rows), own, self.plan.where)


def hashed_form(column: Column) -> str:
    """Return an expression over `t` that is equal for two values only if they look the same, and can be hashed."""
    own, type_ = f"t.{quote(column.name)}", column.type
    if type_ is None or type_.element is not None or type_.kind != "b":
        return f'({own}::text) COLLATE "C"'
    if type_.name in _SAME:
        return own
    if type_.name in _TEXTS:
        return f'({own}) COLLATE "C"'
    if type_.name in _SENT:
        return f"{_SENT[type_.name]}({own})"
    if type_.name == "bpchar":  # a cast would take the blanks away, and equality does not see them
        return f'textin(bpcharout({own})) COLLATE "C"'
    text = column.select if type_.name in {"money", "xml"} else f"{own}::text"
    return f'({text}) COLLATE "C"'


def _type_of_key(type_: Type | None) -> str | None:
    if type_ is None or type_.element is not None or type_.kind != "b" or type_.name not in _KEYS:
        return None
    return f"pg_catalog.{type_.name}"


def _array(values: pa.ChunkedArray) -> str:
    """Return values without null as the literal of an array."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = values.combine_chunks().cast(pa.string())
    for special in ("\\", '"'):
        texts = pc.replace_substring(texts, special, "\\" + special)
    whole = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), '","')
    return literal('{"' + whole[0].as_py() + '"}')
