"""SQL expressions as Ibis values: the text is DuckDB's, so the meaning is DuckDB's, types and precision included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import ibis
import ibis.expr.datashape as ds
import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import ibis.expr.types as ir
import sqlglot
import sqlglot.expressions as sge
from ibis.backends.sql.compilers.duckdb import DuckDBCompiler
from ibis.backends.sql.datatypes import DuckDBType
from ibis.common.annotations import attribute
from ibis.common.typing import VarTuple

from etl_assets.transforms.projection import near
from etl_assets.transforms.scalar_sql import parse_scalar
from etl_resources.exceptions import ConfigurationError, EngineError

if TYPE_CHECKING:
    import duckdb

Resolve = Callable[[tuple[str, ...]], tuple[str, int]]
"""Parts of a dotted name -> (key of a column, how many parts name it); the rest are fields of a struct."""


class SqlExpression(ops.Value):
    """A scalar SQL expression over some values; `{n}` columns of `sql` stand for `arguments[n]`."""

    sql: str
    arguments: VarTuple[ops.Value]
    result: dt.DataType

    @attribute
    def shape(self) -> ds.DataShape:
        """Return columnar, unless all arguments are scalars: an expression over aggregates is an aggregate."""
        return max((argument.shape for argument in self.arguments), default=ds.scalar)

    @attribute
    def dtype(self) -> dt.DataType:
        """Return the type of the result."""
        return self.result


def _visit(_compiler: Any, _op: Any, *, sql: str, arguments: Any, **_result: Any) -> Any:
    tree = _parsed(sql).copy()

    def put(node: Any) -> Any:
        if isinstance(node, sge.Column) and node.name.startswith(_ARGUMENT):
            value = arguments[int(node.name.removeprefix(_ARGUMENT))].copy()
            return value if isinstance(value, sge.Column | sge.Literal | sge.Paren) else sge.Paren(this=value)
        return node

    return sge.Paren(this=tree.transform(put))


@lru_cache(maxsize=4096)
def _parsed(sql: str) -> sge.Expression:
    tree: sge.Expression = sqlglot.parse_one(sql, dialect="duckdb")  # type: ignore[assignment]
    return tree


_ARGUMENT = "__argument_"
DuckDBCompiler.visit_SqlExpression = _visit  # the compiler finds the visitor of an operation by its name


def referenced(text: str, resolve: Resolve) -> tuple[sge.Expression, list[str]]:
    """Return the tree, with all occurrences of columns numbered, and the key of the column of each."""
    tree = parse_scalar(text, repeatable=False).copy()
    return _numbered(tree, resolve)


def _numbered(tree: sge.Expression, resolve: Resolve) -> tuple[sge.Expression, list[str]]:
    keys: list[str] = []

    def number(node: sge.Expression) -> sge.Expression:
        if not isinstance(node, sge.Column):
            return node
        parts = tuple(part.name for part in node.parts)
        key, used = resolve(parts)
        keys.append(key)  # one argument per occurrence: who counts uses, counts how often the value is written
        found: sge.Expression = sge.column(f"{_ARGUMENT}{len(keys) - 1}")
        if parts[used:]:
            found = sge.Paren(this=found)  # a dotted name would be read as table and column
        for field in parts[used:]:
            found = sge.Dot(this=found, expression=sge.to_identifier(field, quoted=True))
        return found

    return tree.transform(number), keys


def evaluate(tree: sge.Expression, values: list[ir.Value], text: str) -> ir.Value:
    """Return the expression over the values.

    Raises:
        ConfigurationError: DuckDB does not understand the expression for these types.
    """
    sql = tree.sql(dialect="duckdb")
    result = _result_type(sql, tuple(value.type() for value in values), text)
    expression: ir.Value = SqlExpression(sql, tuple(value.op() for value in values), result).to_expr()
    return expression


def sql_value(text: str, result: str | dt.DataType, /, **values: Any) -> Any:
    """Return DuckDB SQL of our own over named values, for what Ibis cannot say; plain values become literals."""
    sql, keys = _template(text)
    arguments = [values[key] if isinstance(values[key], ir.Value) else ibis.literal(values[key]) for key in keys]
    return SqlExpression(sql, tuple(value.op() for value in arguments), dt.dtype(result)).to_expr()


@lru_cache(maxsize=4096)
def _template(text: str) -> tuple[str, tuple[str, ...]]:
    tree, keys = _numbered(_parsed(text).copy(), lambda parts: (parts[0], 1))
    return tree.sql(dialect="duckdb"), tuple(keys)


def column_resolver(columns: Mapping[str, Any]) -> Resolve:
    """Resolve names as SQL does: exactly, else without regard to case."""
    folded: dict[str, list[str]] = {}
    for name in columns:
        folded.setdefault(name.lower(), []).append(name)

    def resolve(parts: tuple[str, ...]) -> tuple[str, int]:
        alike = [parts[0]] if parts[0] in columns else folded.get(parts[0].lower(), [])
        if len(alike) != 1:
            hint = (
                f"; {' or '.join(alike)}?" if alike else near(parts[0], [name for name in columns if name[:1] != "_"])
            )
            raise ConfigurationError(f"unknown column {parts[0]!r}{hint}")
        return alike[0], 1

    return resolve


@lru_cache(maxsize=1024)
def _result_type(sql: str, types: tuple[dt.DataType, ...], text: str) -> dt.DataType:
    """Ask DuckDB for the type; the WHERE makes it refuse aggregates and windows."""
    import duckdb

    columns = ", ".join(
        f'NULL::{DuckDBType.to_string(kind)} AS "{_ARGUMENT}{number}"' for number, kind in enumerate(types)
    )
    # nothing in it comes from data, and the expression was parsed: it cannot be more than an expression
    query = f"DESCRIBE SELECT ({sql}) AS v FROM (SELECT {columns or 'NULL AS nothing'}) WHERE ({sql}) IS NULL"  # noqa: S608
    try:
        [row] = _duckdb().execute(query).fetchall()
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"{text!r}: {reason}", fix="see DuckDB's functions and their types") from None
    except duckdb.Error as error:
        raise EngineError(f"{text!r}: {error}") from error
    found: dt.DataType = DuckDBType.from_string(row[1])
    return found


@lru_cache(maxsize=1)
def _duckdb() -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(":memory:", config={"enable_external_access": False, "threads": 1})
    connection.execute("SET TimeZone='UTC'")
    connection.execute("SET lock_configuration=true")
    return connection
