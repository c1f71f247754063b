"""`_etl_commits`: which loads have been applied, in the database itself, in the transaction of their rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from etl_resources.postgres_sql import literal, quote

if TYPE_CHECKING:
    from etl_resources.postgres_session import Session
    from etl_resources.target import CommitToken, Load
    from etl_resources.targets.postgres_table import Table

TABLE = "_etl_commits"


def newest(session: Session, schema: str, app_id: str) -> int | None:
    """Return the highest version of `app_id`, or None."""
    table = quote(schema, TABLE)
    if session.value(f"SELECT to_regclass({literal(table)})::text") is None:
        return None
    found = session.value(f"SELECT max(version) FROM {table} WHERE app_id = {literal(app_id)}")  # noqa: S608 - quoted
    return None if found is None else int(found)


def account(session: Session, schema: str, token: CommitToken) -> dict[str, Any]:
    """Return the account of a load that has been applied."""
    where = f"app_id = {literal(token.app_id)} AND version = {int(token.version)}"
    found = session.value(f"SELECT account::text FROM {quote(schema, TABLE)} WHERE {where}")  # noqa: S608 - quoted
    known: dict[str, Any] = json.loads(str(found))
    return known


def wait_for_turn(session: Session, app_id: str) -> None:
    """Wait until no other load of `app_id` is under way, and keep further ones waiting until this transaction ends."""
    session.rows(f"SELECT pg_advisory_xact_lock(hashtextextended({literal(app_id)}, 0))")


def record(session: Session, table: Table, load: Load, account: Mapping[str, Any]) -> None:
    """Write down that the load has been applied."""
    commits, token = quote(table.schema, TABLE), load.token
    if session.value(f"SELECT to_regclass({literal(commits)})::text") is None:
        wait_for_turn(session, commits)  # two first loads into a schema would both make it
        session.execute(
            f"CREATE TABLE IF NOT EXISTS {commits} (app_id text, version bigint, run_id text NOT NULL,"
            " target text NOT NULL, mode text NOT NULL, account jsonb NOT NULL,"
            " committed_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (app_id, version))"
        )
    values = ", ".join(literal(text) for text in (token.run_id, table.name, load.mode, json.dumps(account)))
    session.execute(
        f"INSERT INTO {commits} (app_id, version, run_id, target, mode, account)"  # noqa: S608 - quoted
        f" VALUES ({literal(token.app_id)}, {int(token.version)}, {values})"
    )
