"""Reads one scalar SQL expression and refuses everything else, before any engine sees it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlglot import exp

OUTSIDE = frozenset({
    "current_connection_id", "current_database", "current_query", "current_query_id", "current_schema",
    "current_schemas", "current_setting", "current_transaction_id", "currval", "error", "getenv", "getvariable",
    "current_role", "current_user", "glob", "in_search_path", "nextval", "parquet_scan", "query", "query_table",
    "read_blob", "read_csv", "read_csv_auto", "read_json", "read_json_auto", "read_json_objects", "read_ndjson",
    "read_ndjson_auto", "read_parquet", "read_text", "session_user", "setseed", "setval", "sleep_ms", "sniff_csv",
    "stats", "txid_current", "user", "vector_type", "write_log",
})  # fmt: skip
"""Functions that look at, or act on, something else than the row."""

CHANGING = frozenset({
    "current_date", "current_localtime", "current_localtimestamp", "current_time", "current_timestamp",
    "gen_random_uuid", "get_current_time", "get_current_timestamp", "localtime", "localtimestamp", "now", "rand",
    "random", "today", "transaction_timestamp", "uuid", "uuidv4", "uuidv7",
})  # fmt: skip
"""Functions that give something else at the next replay of the same row."""


@lru_cache(maxsize=4096)
def parse_scalar(text: str, *, repeatable: bool) -> exp.Expression:
    """Return the tree of one scalar expression in DuckDB's dialect; callers copy it before they change it.

    `repeatable`: refuse what gives another value for the same row at another time (silver).

    Raises:
        ValueError: it is not one scalar expression.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        statements = sqlglot.parse(f"SELECT {text}\n", dialect="duckdb")
    except SqlglotError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{text!r} is not SQL: {reason}") from None
    select = statements[0] if len(statements) == 1 else None
    if not isinstance(select, exp.Select) or len(select.expressions) != 1 or _clauses(select):
        raise ValueError(f"{text!r} is not one scalar expression")
    tree = select.expressions[0]
    for node in tree.walk():
        node.comments = None
    _refuse_other_rows(tree, text)
    _refuse_functions(tree, text, OUTSIDE, "reaches outside the row")
    if repeatable:
        _refuse_functions(tree, text, CHANGING, "gives another value at the next replay; use it in gold")
    return tree


def _clauses(select: exp.Select) -> list[str]:
    return [name for name, value in select.args.items() if value and name != "expressions"]


def _refuse_other_rows(tree: exp.Expression, text: str) -> None:
    from sqlglot import exp

    refused: dict[type[Any], str] = {
        exp.Query: "a subquery",
        exp.Table: "a table",
        exp.Window: "a window function",
        exp.AggFunc: "an aggregate",
        exp.Star: "a star",
        exp.Columns: "a choice of columns",
        exp.Unnest: "unnest",
        exp.Explode: "unnest",
        exp.Alias: "an alias",
        exp.Placeholder: "a parameter",
        exp.Parameter: "a parameter",
        exp.Command: "a command",
        exp.DDL: "a statement",
        exp.DML: "a statement",
    }
    for node in tree.walk():
        for kind, called in refused.items():
            if isinstance(node, kind):
                raise ValueError(  # noqa: TRY004 - one kind of mistake
                    f"{text!r}: {called} is not allowed here; only one scalar expression over the row"
                )


def _refuse_functions(tree: exp.Expression, text: str, names: frozenset[str], why: str) -> None:
    from sqlglot import exp

    for node in tree.find_all(exp.Func):
        written = re.match(r'"?(\w+)"?', node.sql(dialect="duckdb"))
        called = {written[1].lower() if written else "", node.name.lower() if isinstance(node, exp.Anonymous) else ""}
        if called & names:
            raise ValueError(f"{text!r}: {min(called & names)} {why}")
