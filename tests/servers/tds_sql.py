"""T-SQL to DuckDB's SQL, and what T-SQL types the columns of a result have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import sqlglot
from sqlglot import exp

from tests.servers.tds_types import SqlType

UNNAMED = "_col_"
"""Columns of a result that have no name get one in DuckDB, which would show the whole expression."""
Declared = Mapping[str, Mapping[str, SqlType]]
_VERSION = "unhex(printf('%016x', nextval('dbo.etl_versions')))"


_FUNCTIONS = {
    "CurrentTimestampLTZ": "now()", "CurrentTimestamp": "CAST(now() AS TIMESTAMP)", "DB_ID": "1",
    "SYSUTCDATETIME": "CAST(now() AS TIMESTAMP)", "SCHEMA_NAME": "'dbo'",
}  # fmt: skip
"""By their names, or by those of the classes that sqlglot makes of them."""


@dataclass
class Translated:
    """A statement for DuckDB: `kind` begin, commit, rollback, isolation, load, create, write, describe or select."""

    kind: str
    sql: str = ""
    arguments: tuple[str, ...] = ()
    types: dict[str, SqlType] = field(default_factory=dict)
    columns: list[SqlType | None] | None = None


def translate(batch: str, declared: Declared) -> Iterator[Translated]:
    """Give the statements of a batch, each translated when the one before has run."""
    if given := _special(batch.strip().rstrip(";")):
        yield given
        return
    for tree in sqlglot.parse(batch, read="tsql"):
        if tree is None:
            continue
        yield _special(tree.sql("tsql")) or _statement(tree, declared)


def _special(text: str) -> Translated | None:
    """What is not SQL to DuckDB."""
    if match := re.fullmatch(r"(BEGIN|COMMIT|ROLLBACK)(\s+TRAN(SACTION)?)?", text, re.IGNORECASE):
        return Translated(match[1].lower())
    if match := re.fullmatch(r"SET\s+TRANSACTION\s+ISOLATION\s+LEVEL\s+([\w ]+)", text, re.IGNORECASE):
        return Translated("isolation", match[1].upper())
    if match := re.fullmatch(r"EXEC tds_load N'(.*)', N'(.*)'", text):
        return Translated("load", arguments=(match[1].replace("''", "'"), match[2]))
    if re.match(r"SET\s+\w+", text, re.IGNORECASE) and "=" not in text:
        return Translated("select", "SELECT 1 WHERE false")
    # The argument of this one is T-SQL itself.
    if match := re.search(r"sys\.dm_exec_describe_first_result_set\(N'((?:[^']|'')*)', NULL, 0\)", text):
        outer = text[: match.start()] + "etl_described" + text[match.end() :]
        return Translated("describe", outer, (match[1].replace("''", "'"),))
    return None


def _statement(tree: exp.Expression, declared: Declared) -> Translated:
    if isinstance(tree, exp.Create) and tree.kind == "TABLE" and isinstance(tree.this, exp.Schema):
        return _create(tree)
    columns = None
    if isinstance(tree, exp.Select):
        columns = _column_types(tree, declared)
        for n, expression in enumerate(list(tree.expressions)):
            if not expression.is_star and not isinstance(expression, exp.Alias | exp.Column):
                expression.replace(exp.alias_(expression.copy(), f"{UNNAMED}{n}"))
    for table in tree.find_all(exp.Table):
        table.set("hints", None)
        table.set("catalog", None)
    tree = tree.transform(_for_duckdb)
    if isinstance(tree, exp.Update):
        types = declared.get(_name(tree.this), {})
        for name in (n for n, type_ in types.items() if type_.name == "rowversion"):
            tree.append("expressions", exp.EQ(this=exp.column(name, quoted=True), expression=_sql(_VERSION)))
    kind = "write" if isinstance(tree, exp.Insert | exp.Update | exp.Delete | exp.Merge) else "select"
    return Translated(kind, tree.sql("duckdb", identify=True), columns=columns)


def _sql(text: str) -> exp.Expression:
    return sqlglot.parse_one(text, read="duckdb")


def _name(table: exp.Expression) -> str:
    return f"{table.db or 'dbo'}.{table.name}".lower() if isinstance(table, exp.Table) else ""


def _create(tree: exp.Create) -> Translated:
    """CREATE TABLE with the declared types kept aside: DuckDB's own do not tell nvarchar(10) from nvarchar(max)."""
    types, parts = {}, []
    for column in tree.this.expressions:
        if not isinstance(column, exp.ColumnDef):
            parts.append(column.sql("duckdb"))
            continue
        type_ = SqlType.parse(column.args["kind"].sql("tsql"))
        types[column.name] = type_
        rest = " ".join(c.sql("duckdb") for c in column.args.get("constraints") or ())
        if type_.name == "rowversion":
            rest = f"DEFAULT {_VERSION}"
        parts.append(f"{column.this.sql('duckdb', identify=True)} {duckdb_type(type_)} {rest}")
    table = tree.this.this
    sql = f"CREATE TABLE {table.sql('duckdb', identify=True)} ({', '.join(parts)})"
    return Translated("create", sql, (_name(table),), types)


def duckdb_type(type_: SqlType) -> str:
    """Return the type that DuckDB keeps such values in."""
    if type_.name == "decimal":
        return f"DECIMAL({type_.length}, {type_.scale})"
    names = {
        "tinyint": "UTINYINT", "bit": "BOOLEAN", "money": "DECIMAL(19, 4)", "float": "DOUBLE", "real": "REAL",
        "datetime": "TIMESTAMP", "datetime2": "TIMESTAMP", "datetimeoffset": "TIMESTAMPTZ", "rowversion": "BLOB",
        "varbinary": "BLOB", "binary": "BLOB", "uniqueidentifier": "VARCHAR",
    }  # fmt: skip
    return names.get(type_.name, "VARCHAR" if type_.name.endswith("char") else type_.name.upper())


def _for_duckdb(node: exp.Expression) -> exp.Expression:
    if isinstance(node, exp.HexString):
        return _sql(f"unhex('{node.this}')")
    if isinstance(node, exp.DataType):
        return exp.DataType.build(duckdb_type(SqlType.parse(node.sql("tsql"))), dialect="duckdb")
    name = node.name.upper() if isinstance(node, exp.Anonymous) else type(node).__name__
    return _sql(_FUNCTIONS[name]) if name in _FUNCTIONS else node


def _column_types(select: exp.Select, declared: Declared) -> list[SqlType | None] | None:
    """Return what is known of the types of a result: of declared columns, and of CASTs. None: ask DuckDB."""
    known: dict[str, SqlType] = {}
    source = select.args.get("from_") or select.args.get("from")
    tables = [source.this] if source is not None else []
    tables += [join.this for join in select.args.get("joins") or ()]
    for table in tables:
        if isinstance(table, exp.Subquery) and isinstance(table.this, exp.Select):
            inner = _column_types(table.this, declared)
            names = [e.alias_or_name for e in table.this.expressions]
            if inner is not None and len(names) == len(inner):
                known |= {name: type_ for name, type_ in zip(names, inner, strict=True) if type_ is not None}
            elif any(e.is_star for e in table.this.expressions):
                known |= _starred(table.this, declared)
        known |= declared.get(_name(table), {})
    if any(e.is_star for e in select.expressions):
        return list(known.values()) if len(select.expressions) == 1 and known else None
    lower = {name.lower(): type_ for name, type_ in known.items()}
    return [_type_of(e, lower) for e in select.expressions]


def _starred(select: exp.Select, declared: Declared) -> Mapping[str, SqlType]:
    source = select.args.get("from_") or select.args.get("from")
    return declared.get(_name(source.this), {}) if source is not None else {}


def _type_of(expression: exp.Expression, known: Mapping[str, SqlType]) -> SqlType | None:
    inner = expression.unalias()
    if isinstance(inner, exp.Column):
        return known.get(inner.name.lower())
    if isinstance(inner, exp.Cast | exp.TryCast):
        return SqlType.parse(inner.to.sql("tsql"))
    if isinstance(inner, exp.Max | exp.Min):
        return _type_of(inner.this, known)
    if isinstance(inner, exp.Anonymous) and inner.name.upper() == "MIN_ACTIVE_ROWVERSION":
        return SqlType("binary", 8)
    return None
