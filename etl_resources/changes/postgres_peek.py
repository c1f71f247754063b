"""Reads messages of a logical replication slot, as they are, without consuming them."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from etl_resources.postgres_sql import literal
from etl_resources.sources.postgres_columns import unambiguous

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.postgres_session import Session

BATCH_BYTES, BATCH_ROWS = 2 << 20, 1 << 15
MESSAGES_SINCE = 140000
"""Servers of this version and later can give messages of applications, and later ones give no transaction that is empty
without them. Earlier ones refuse the option, and give the empty transaction that a message of ours is."""


def peek(
    session: Session,
    slot: str,
    publication: str,
    *,
    upto_lsn: str | None = None,
    upto_nchanges: int | None = None,
    server: int = MESSAGES_SINCE,
    batch_bytes: int = BATCH_BYTES,
    batch_rows: int = BATCH_ROWS,
) -> Generator[pa.Array, None, None]:
    """Yield the messages (binary) of the transactions that the slot has not been advanced over, in the order of commit,
    about `batch_bytes` and at most `batch_rows` at a time.

    It ends behind the first transaction with which there are `upto_nchanges` messages, or whose commit is at or after
    `upto_lsn`; transactions are never cut. `server` is its version (`server_version_num`). The settings of the session
    are changed to those under which values are unambiguous, and stay so. To fetch while working, wrap it in
    `read_ahead`.

    Raises:
        UnavailableError, NotFoundError, EngineError: as the server said.
    """
    prepare(session)
    lsn = "NULL" if upto_lsn is None else f"{literal(upto_lsn)}::pg_lsn"
    changes = "NULL" if upto_nchanges is None else str(int(upto_nchanges))
    statement = _statement(slot, publication, lsn, changes, messages=server >= MESSAGES_SINCE)
    with session.stream(statement, batch_bytes=batch_bytes) as batches:
        for batch in batches:
            # Messages of deletes are short: it is the rows that bound what decoding needs.
            for start in range(0, batch.num_rows, batch_rows):
                yield batch.column(0).slice(start, batch_rows)


def prepare(session: Session) -> None:
    """Make the texts of values unambiguous in this session."""
    session.rows(unambiguous(local=False))


def _statement(slot: str, publication: str, lsn: str, changes: str, *, messages: bool) -> str:
    # The publication is a list of identifiers within a literal, and so quoted twice.
    names = literal('"' + publication.replace('"', '""') + '"')
    options = f"'proto_version', '1', 'publication_names', {names}" + (", 'messages', 'true'" if messages else "")
    function = "pg_catalog.pg_logical_slot_peek_binary_changes"
    return f"SELECT data FROM {function}({literal(slot)}, {lsn}, {changes}, {options})"  # noqa: S608 - quoted
