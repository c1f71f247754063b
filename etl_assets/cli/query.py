"""`etl query`: SQL over the tables of a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from etl_assets.cli.options import Env, Json, Pipeline

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.cli.location import Location
    from etl_assets.references import Reference
    from etl_resources.engines.duckdb import Session

ROWS = 100
_WIDEST = 40
"""Characters of a cell."""


def query(
    pipeline: Pipeline,
    sql: Annotated[
        str, typer.Argument(metavar="SQL", show_default=False, help="One SELECT over silver.x, gold.y, bronze.z.")
    ],
    live: Annotated[
        bool, typer.Option("--live", help="Silver with what is pending in bronze, as a refining would make it.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, metavar="ROWS", help="Rows at the most; 0: all.")] = ROWS,
    env: Env = None,
    json: Json = False,
) -> None:
    """Ask the tables of a pipeline, by SQL; changes nothing."""
    from etl_assets.cli.output import emit
    from etl_assets.cli.project import entered
    from etl_assets.cli.run import waiting

    with entered(env) as project:
        project.location.context(pipeline)
        with waiting("asking"):
            found, more = answer(project.location, pipeline, sql, live=live, limit=limit)
        if json:
            emit(found.to_pylist())
        else:
            _print(found)
        if more:
            typer.echo(f"There are more rows; these are {limit}. --limit 0 shows all.", err=True)


def answer(location: Location, pipeline: str, sql: str, *, live: bool, limit: int) -> tuple[pa.Table, bool]:
    """Run a query and return its first `limit` rows (0: all), and whether there are more.

    Raises:
        ConfigurationError: it is not one SELECT, or reads something else than tables of the lake.
        NotFoundError: a table is not there.
        EngineError: the engine cannot run it.
    """
    from etl_assets.references import attach, references_of

    references = references_of(sql, pipeline, where="the query")
    with location.engine.session() as session:
        for reference in references:
            attach(session, reference, _relation(location, session, reference, live=live))
        # Ended by a comment, it would take the bracket along.
        text = sql.strip().rstrip(";")
        found = session.table(f"SELECT * FROM (\n{text}\n) LIMIT {limit + 1}" if limit else text)  # noqa: S608
    return (found.slice(0, limit), found.num_rows > limit) if limit else (found, False)


def _relation(location: Location, session: Session, reference: Reference, *, live: bool) -> str:
    from etl_assets.silver_live import live as merged
    from etl_resources.exceptions import NotFoundError
    from etl_resources.hints import nearest

    if live and reference.layer == "silver" and reference.pipeline in location.contexts:
        for stream in location.streams(reference.pipeline):
            if stream.name == reference.table:
                return merged(stream.silver(location.lake, location.engine), session)
    handle = location.lake.table(*reference.key).open()
    if handle is not None:
        return session.lake_relation(handle)
    keys = [key.path for key in location.keys(reference.pipeline)] if reference.pipeline in location.names else []
    there = [".".join((path[0], *path[2:])) for path in keys if path[0] == reference.layer]
    known = f"{reference.layer}.{reference.table}" in there
    hint = nearest(str(reference), there) or f"known: {', '.join(there)}"
    raise NotFoundError(
        f"there is no table {reference}{' yet' if known else ''}",
        where="the query",
        fix=f"etl run {reference.pipeline}" if known else hint,
    )


def _print(found: pa.Table) -> None:
    from etl_assets.cli.output import plural, stdout, table

    rows = [[_cell(value) for value in row.values()] for row in _rows(found)]
    console = stdout()
    console.print(table(found.column_names, rows, fold=found.column_names))
    console.print(plural(found.num_rows, "row"))


def _rows(found: pa.Table) -> list[dict[int, Any]]:
    """Return the rows by number of the column: a query may give two columns one name."""
    columns = [column.to_pylist() for column in found.columns]
    return [dict(enumerate(row)) for row in zip(*columns, strict=True)]


def _cell(value: Any) -> Any:
    from decimal import Decimal

    if value is None or isinstance(value, int | float | Decimal):
        return value
    text = str(value)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
