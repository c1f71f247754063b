"""Names of lake tables in SQL: `silver.sales`, `gold.totals`, or `silver.other_pipeline.sales`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.engines.duckdb import quote
from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    from etl_resources.engines.duckdb import Session

LAYERS = ("bronze", "silver", "gold")


@dataclass(frozen=True, order=True)
class Reference:
    """A table of the lake as SQL names it."""

    layer: str
    pipeline: str
    table: str
    foreign: bool = False
    """Written with the name of its pipeline, because it is another one."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Key of the table in the lake, and of its asset."""
        return self.layer, self.pipeline, self.table

    @property
    def sql(self) -> str:
        """The name as it stands in SQL, quoted."""
        parts = (self.layer, self.pipeline, self.table) if self.foreign else (self.layer, self.table)
        return ".".join(quote(part) for part in parts)

    def __str__(self) -> str:
        return f"{self.layer}.{self.pipeline}.{self.table}" if self.foreign else f"{self.layer}.{self.table}"


def parse_reference(text: str, pipeline: str, *, where: str) -> Reference:
    """Read `silver/sales` or `silver/other/sales` (dots do as well).

    Raises:
        ConfigurationError: it has another shape.
    """
    parts = text.replace(".", "/").split("/")
    if parts[0] not in LAYERS or len(parts) not in (2, 3):
        raise ConfigurationError(
            f"{text!r} is not the name of a table", where=where, fix="write silver/<table> or silver/<pipeline>/<table>"
        )
    if len(parts) == 2:
        return Reference(parts[0], pipeline, parts[1])
    return Reference(parts[0], parts[1], parts[2], foreign=True)


def references_of(sql: str, pipeline: str, *, where: str) -> tuple[Reference, ...]:
    """Return the lake tables that a query reads.

    Raises:
        ConfigurationError: the SQL cannot be parsed, is not one query, or reads something else than lake tables.
    """
    import sqlglot
    from sqlglot import exp

    try:
        statements = sqlglot.parse(sql, dialect="duckdb")
    except sqlglot.ParseError as error:
        raise ConfigurationError(f"the SQL cannot be parsed: {error}", where=where, fix="mend the SQL") from error
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise ConfigurationError("the file is not one query", where=where, fix="write one SELECT; no other statement")
    query = statements[0]
    names = {cte.alias.lower() for cte in query.find_all(exp.CTE)}
    found: set[Reference] = set()
    strange: list[str] = []
    for table in query.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier):
            strange.append(table.sql(dialect="duckdb"))
        elif not table.db and table.name.lower() in names:
            continue
        elif table.catalog in LAYERS:
            found.add(Reference(table.catalog, table.db, table.name, foreign=True))
        elif table.db in LAYERS and not table.catalog:
            found.add(Reference(table.db, pipeline, table.name))
        else:
            strange.append(table.sql(dialect="duckdb"))
    if strange:
        raise ConfigurationError(
            f"the SQL reads {', '.join(sorted(set(strange)))}, which is no table of the lake",
            where=where,
            fix="name tables silver.<table>, gold.<table> or silver.<pipeline>.<table>",
        )
    return tuple(sorted(found))


def attach(session: Session, reference: Reference, relation: str) -> None:
    """Make a lake table readable under the name by which SQL calls it."""
    attached = {row[0] for row in session.execute("SELECT database_name FROM duckdb_databases()")}
    if reference.layer not in attached:
        session.execute(f"ATTACH ':memory:' AS {quote(reference.layer)}")
    schema = quote(reference.pipeline) if reference.foreign else "main"
    name = f"{quote(reference.layer)}.{schema}"
    session.execute(f"CREATE SCHEMA IF NOT EXISTS {name}")
    session.execute(f"CREATE OR REPLACE VIEW {name}.{quote(reference.table)} AS SELECT * FROM {relation}")  # noqa: S608
