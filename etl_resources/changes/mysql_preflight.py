"""Whether a server and its tables can be followed: what would lose changes is an error before it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from etl_resources.change_log import Finding
from etl_resources.changes.mysql_snapshot import walk
from etl_resources.exceptions import ConfigurationError, CredentialsRejectedError, EngineError, NotFoundError
from etl_resources.mysql_sql import literal

if TYPE_CHECKING:
    from etl_resources.changes.mysql_server import Server
    from etl_resources.changes.mysql_shapes import Definition

_WANTED = {
    "log_bin": ("ON", "start the server with log_bin"),
    "binlog_format": ("ROW", "SET GLOBAL binlog_format = 'ROW', and have the applications connect anew"),
    "binlog_row_image": ("FULL", "SET GLOBAL binlog_row_image = 'FULL', and have the applications connect anew"),
    "binlog_row_metadata": ("FULL", "SET GLOBAL binlog_row_metadata = 'FULL'"),
}
_SHORT = 86_400
_CHANGING = ("CASCADE", "SET NULL", "SET DEFAULT")


def settings(server: Server) -> Iterator[Finding]:
    """Yield what the settings of the server mean for its log."""
    for name, (wanted, fix) in _WANTED.items():
        found = server.setting(name)
        # MySQL has dropped binlog_format where only rows are left.
        if found is None and name == "binlog_format":
            continue
        if found is None or found.upper() != wanted:
            yield Finding("error", f"{name} is {found or 'unknown to this server'}, and has to be {wanted}", fix)
        else:
            yield Finding("ok", f"{name} = {found}")
    if "PARTIAL_JSON" in (server.setting("binlog_row_value_options") or "").upper():
        yield Finding(
            "error", "binlog_row_value_options has PARTIAL_JSON: updates of documents are logged in parts",
            "SET GLOBAL binlog_row_value_options = ''",
        )  # fmt: skip
    if (server.setting("binlog_checksum") or "NONE") == "NONE":
        yield Finding("warning", "binlog_checksum is NONE: damage is not noticed", "SET GLOBAL binlog_checksum = CRC32")
    yield from retention(server)
    if not server.is_mariadb and (server.setting("gtid_mode") or "").upper() != "ON":
        yield Finding(
            "warning", "gtid_mode is not ON: at another server the streams have to be read anew", "switch GTIDs on"
        )


def retention(server: Server) -> Iterator[Finding]:
    """Yield how long the server keeps its log."""
    seconds = float(server.setting("binlog_expire_logs_seconds") or 0)
    seconds = seconds or 86_400 * float(server.setting("expire_logs_days") or 0)
    if not seconds:
        yield Finding("ok", "binlogs are kept until somebody purges them")
    elif seconds < _SHORT:
        yield Finding(
            "warning", f"binlogs are kept for {seconds / 3600:.1f} hours: after that without a run, all is read anew",
            "raise binlog_expire_logs_seconds to some days",
        )  # fmt: skip
    else:
        yield Finding("ok", f"binlogs are kept for {seconds / 86_400:.1f} days")


def privileges(server: Server) -> Iterator[Finding]:
    """Yield what the user may not do."""
    for what, ask in (("ask where the log ends", server.end), ("list the files of the log", server.files)):
        try:
            ask()
        except (CredentialsRejectedError, ConfigurationError, EngineError) as error:
            needs = "BINLOG MONITOR" if server.is_mariadb else "REPLICATION CLIENT"
            yield Finding(
                "error", f"cannot {what}: {error.what}", f"GRANT REPLICATION SLAVE, {needs} ON *.* to the user"
            )
            return
    grants = " ".join(str(row[0]).upper() for row in server.session.rows("SHOW GRANTS"))
    if "REPLICATION SLAVE" not in grants and "ALL PRIVILEGES ON *.*" not in grants:
        yield Finding(
            "warning", "REPLICATION SLAVE is not among the user's own grants; it may come by a role",
            "GRANT REPLICATION SLAVE ON *.* to the user",
        )  # fmt: skip


def filters(server: Server, definition: Definition) -> Iterator[Finding]:
    """Yield whether the server leaves the table's database out of its log."""
    found = [row for row in server.session.rows(_status(server)) if row]
    only, ignored = (str(found[0][2] or ""), str(found[0][3] or "")) if found else ("", "")
    database = definition.database
    if (only and database not in only.split(",")) or database in ignored.split(","):
        yield Finding(
            "error", f"changes of database {database} are left out of the log",
            "correct binlog_do_db and binlog_ignore_db", definition.name,
        )  # fmt: skip


def _status(server: Server) -> str:
    return "SHOW MASTER STATUS" if server.is_mariadb or server.version < (8, 2) else "SHOW BINARY LOG STATUS"


def table(server: Server, definition: Definition, *, allow_cascades: bool) -> Iterator[Finding]:
    """Yield what stands in the way of following a table."""
    session, name = server.session, definition.name
    place = f"table_schema = {literal(definition.database)} AND table_name = {literal(definition.table)}"
    kind, engine = session.rows(f"SELECT table_type, engine FROM information_schema.tables WHERE {place}")[0]  # noqa: S608
    if str(kind) != "BASE TABLE":
        yield Finding("error", f"it is a {str(kind).lower()}", "follow a plain table", name)
        return
    try:
        key = walk(session, definition)
        yield Finding("ok", "read by " + ", ".join(column.name for column in key), stream=name)
    except (ConfigurationError, NotFoundError) as error:
        yield Finding("error", error.what, error.fix, name)
    if str(engine).lower() not in {"innodb", "rocksdb", "ndbcluster"}:
        yield Finding(
            "warning", f"{engine} has no transactions: writers wait while a part of the first load is read",
            "ALTER TABLE … ENGINE = InnoDB", name,
        )  # fmt: skip
    columns = f"SELECT column_name FROM information_schema.columns WHERE {place} AND column_type LIKE '%COMPRESSED%'"  # noqa: S608
    if compressed := session.rows(columns):
        yield Finding("error", f"column {compressed[0][0]} is COMPRESSED", "alter it to a plain one", name)
    yield from _cascades(server, definition, allow=allow_cascades)


def _cascades(server: Server, definition: Definition, *, allow: bool) -> Iterator[Finding]:
    """Yield foreign keys by which the engine changes rows without a word in the log."""
    if not server.is_mariadb and server.version >= (9, 6):
        return  # from here on the server changes such rows itself, and logs it
    rules = ", ".join(literal(rule) for rule in _CHANGING)
    found = server.session.rows(
        "SELECT constraint_name, referenced_table_name FROM information_schema.referential_constraints"  # noqa: S608
        f" WHERE constraint_schema = {literal(definition.database)} AND table_name = {literal(definition.table)}"
        f" AND (delete_rule IN ({rules}) OR update_rule IN ({rules}))"
    )
    for constraint, parent in found:
        yield Finding(
            "warning" if allow else "error",
            f"foreign key {constraint} changes rows when rows of {parent} do, and the log does not hold such changes",
            "choose another capture; or set `allow_cascades` where parents are never deleted, nor their keys changed",
            definition.name,
        )
