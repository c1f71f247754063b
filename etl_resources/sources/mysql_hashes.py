"""MySQL and MariaDB hash their rows: only keys and hashes are moved, then the rows that differ, out of one snapshot.

A row is the texts of its columns, in the order of their names, each so that nobody can take it for another: numbers and
times end in a comma, text and bytes have their length before them, and those that may be very long are an MD5. Text is
hashed as the bytes of its UTF-8, so that no collation takes two values for one. The hash is the first 64 bits of the
MD5 of that. Where the server cannot make the text, because it is longer than `max_allowed_packet`, it says NULL: that
goes up to the hash, where it is an error, and is never taken for a value that is null.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError
from etl_resources.hashed import HASH, HashedTable
from etl_resources.mysql_sql import literal, quote, unquoted
from etl_resources.tables import column_named

if TYPE_CHECKING:
    import pyarrow as pa
    from pymysql.protocol import FieldDescriptorPacket

    from etl_resources.hashed import Records
    from etl_resources.mysql_session import Session
    from etl_resources.source import Stream
    from etl_resources.sources.mysql import MysqlSource, MysqlStreamOptions
    from etl_resources.sources.mysql_columns import Column
    from etl_resources.sources.mysql_plan import Plan

PICKED = 1_000
"""Keys per query: so many of the longest that an index can hold stay below the smallest usual `max_allowed_packet`."""
_LONG = 1 << 18
"""Bytes of UTF-8 from which on a value is hashed by itself: more than a TEXT has."""
_TOLD_FLAGS = 0x20 | 0x40 | 0x80 | 0x100 | 0x800  # unsigned, zerofill, binary, enum, set
_JSON = 245
_PROBE = "CONCAT(1.50, ',', 0.1e0, ',', 1e300, ',', 1e-7, ',', TIMESTAMP '2024-02-29 01:02:03.400000')"


@contextmanager
def opened(
    source: MysqlSource, stream: Stream, options: MysqlStreamOptions, key: Sequence[str]
) -> Iterator[MysqlHashes]:
    """Begin a transaction that sees one snapshot of a table."""
    from etl_resources.sources.mysql_parallel import SNAPSHOT
    from etl_resources.sources.mysql_plan import make_plan

    with source.session() as session:
        session.execute(SNAPSHOT)
        # From here on the columns stay as they are: who wants to alter the table waits.
        yield MysqlHashes(session, make_plan(session, stream, options, source.database), key)


class MysqlHashes(HashedTable):
    """The rows of a table within one transaction."""

    def __init__(self, session: Session, plan: Plan, key: Sequence[str]) -> None:
        self.session, self.plan, self.schema = session, plan, plan.schema
        self.position = {"snapshot": True}
        self.key = [column_named(name, plan.columns, plan.where) for name in key]
        self.fields = {field.name: field for field in session.fields(plan.relation)}
        columns = sorted(plan.columns, key=lambda column: column.name)
        self.hash = hash_sql([hashed_form(column, self.fields[column.name]) for column in columns])
        # Numbers and times are hashed as the server writes them, which another version may do in another way.
        version, probe = session.rows(f"SELECT VERSION(), {_PROBE}")[0]
        release = ".".join(str(version).split(".")[:2])
        told = "\n".join([f"{probe} {self.hash}", *(_told(self.fields[column.name]) for column in columns)])
        vendor = "mariadb" if session.is_mariadb else "mysql"
        self.hashed_by = f"{vendor} {release} {hashlib.blake2b(told.encode(), digest_size=16).hexdigest()}"

    def count(self) -> int:
        """Return the number of rows."""
        return int(self.session.value(f"SELECT COUNT(*) FROM {self.plan.relation} AS t"))  # noqa: S608 - quoted

    def hashes(self, batch_rows: int) -> Iterator[Records]:
        """Yield the key columns and `_hash` of every row."""
        return self._read(self.key, "", batch_rows)

    def rows(self, batch_rows: int) -> Iterator[Records]:
        """Yield every row, with `_hash`."""
        return self._read(self.plan.columns, "", batch_rows)

    def pick(self, keys: pa.Table, batch_rows: int) -> Iterator[Records] | None:
        """Yield the rows of some keys, and those whose keys a collation takes for the same; None without an index."""
        import pyarrow as pa

        for column in self.key:
            # No text gives a float back for certain, and JSON is not compared with text.
            if pa.types.is_floating(column.arrow) or self.fields[column.name].type_code == _JSON:
                return None
        return self._picked(keys, batch_rows) if self._is_indexed() else None

    def _is_indexed(self) -> bool:
        """Return whether a key leads to few rows: through all of an index that begins with it, or of a unique one."""
        database, table = unquoted(self.plan.relation)
        rows = self.session.rows(
            "SELECT index_name, non_unique, column_name FROM information_schema.statistics"  # noqa: S608 - literals
            f" WHERE table_schema = {literal(database)} AND table_name = {literal(table)}"
            " ORDER BY index_name, seq_in_index"
        )
        indexes: dict[tuple[str, int], list[str]] = {}
        for name, non_unique, column_name in rows:
            indexes.setdefault((str(name), int(non_unique)), []).append(str(column_name))
        key = {column.name for column in self.key}
        return any(
            set(columns[: len(key)]) == key or (not non_unique and key.issuperset(columns))
            for (_, non_unique), columns in indexes.items()
        )

    def _picked(self, keys: pa.Table, batch_rows: int) -> Iterator[Records]:
        import pyarrow.compute as pc

        for start in range(0, keys.num_rows, PICKED):
            part = keys.slice(start, PICKED)
            # Not `(a, b) IN (...)`, where MariaDB compares the bytes of text in different character sets.
            equal = [
                pc.binary_join_element_wise(f"t.{quote(column.name)} =", literals(part[column.name]), " ")
                for column in self.key
            ]
            rows = pc.binary_join_element_wise(*equal, " AND ").to_pylist()
            yield from self._read(self.plan.columns, f" WHERE {' OR '.join(f'({row})' for row in rows)}", batch_rows)

    def _read(self, columns: Sequence[Column], condition: str, batch_rows: int) -> Iterator[Records]:
        import pyarrow as pa

        from etl_resources.sources.mysql_columns import Column
        from etl_resources.sources.mysql_values import finish

        own = [*columns, Column(HASH, self.hash, pa.int64())]
        selected = ", ".join(f"{column.select} AS {quote(column.name)}" for column in own)
        query = f"SELECT {selected} FROM {self.plan.relation} AS t{condition}"  # noqa: S608 - all names are quoted
        _, blocks = self.session.stream(query, rows=batch_rows)
        for block in blocks:
            cells = block.columns(len(own), self.session.where)
            if cells[-1].null_count:
                raise ConfigurationError(
                    "the server cannot hash all rows: some are longer than its max_allowed_packet",
                    where=self.plan.where,
                    fix="raise `max_allowed_packet` of the server, or hash the rows here: `diff: {hashes: here}`",
                )
            yield finish(cells, own, self.plan.where)


def hash_sql(forms: Sequence[str]) -> str:
    """Return the hash of a row, as a signed number of 64 bits."""
    return f"CONV(LEFT(MD5(CONCAT({', '.join(forms)})), 16), 16, -10)"


def hashed_form(column: Column, field: FieldDescriptorPacket) -> str:
    """Return text or bytes of a value over `t`, of which none begins as another does; NULL only if it is too long."""
    import pyarrow as pa

    own = column.select
    if not (pa.types.is_string(column.arrow) or pa.types.is_binary(column.arrow)):
        return f"IFNULL({own}, '-'), ','"
    is_text = pa.types.is_string(column.arrow)
    value = f"CONVERT({own} USING utf8mb4)" if is_text else own
    # In characters, which are as many in every character set: the value is converted once, and not twice.
    length = f"CHAR_LENGTH({own})" if is_text else f"LENGTH({own})"
    text = f"MD5({value})" if field.length > _LONG else f"CONCAT({length}, ':', {value})"
    return f"IF({own} IS NULL, '-', {text})"


def literals(column: pa.ChunkedArray) -> pa.Array:
    """Return values without null as SQL, whatever `sql_mode` is set to."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from etl_resources.hex_text import hexed

    values = column.combine_chunks()
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        introducer = "x'" if pa.types.is_binary(kind) else "_utf8mb4 x'"
        return pc.binary_join_element_wise(introducer, hexed(values.cast(pa.binary())), "'", "")
    if pa.types.is_timestamp(kind):
        values = values.cast(pa.timestamp("us"))  # sessions are in UTC
    if pa.types.is_temporal(kind):
        return pc.binary_join_element_wise("'", values.cast(pa.string()), "'", "")
    return (values.cast(pa.int8()) if pa.types.is_boolean(kind) else values).cast(pa.string())


def _told(field: FieldDescriptorPacket) -> str:
    return f"{field.name} {field.type_code} {field.length} {field.scale} {field.charsetnr} {field.flags & _TOLD_FLAGS}"
