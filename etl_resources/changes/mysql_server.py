"""What is asked of the server beside its log: who it is, where its log ends, which files it still has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.changes.mysql_position import file_number
from etl_resources.exceptions import ConfigurationError
from etl_resources.mysql_sql import literal

if TYPE_CHECKING:
    from etl_resources.mysql_session import Session


@dataclass(frozen=True, slots=True)
class Server:
    """One server, asked through a session."""

    session: Session
    identity: str
    version: tuple[int, ...]

    @classmethod
    def of(cls, session: Session) -> Server:
        """Ask who it is."""
        name = "server_id" if session.is_mariadb else "server_uuid"
        version = re.findall(r"\d+", str(session.value("SELECT VERSION()")))[:3]
        return cls(session, str(session.value(f"SELECT @@GLOBAL.{name}")), tuple(map(int, version)))

    @property
    def is_mariadb(self) -> bool:
        """MariaDB, and not MySQL."""
        return self.session.is_mariadb

    def end(self) -> tuple[str, int]:
        """Return the file that is written to, and where it ends.

        Raises:
            ConfigurationError: there is no binlog.
        """
        old = self.is_mariadb or self.version < (8, 2)
        rows = self.session.rows("SHOW MASTER STATUS" if old else "SHOW BINARY LOG STATUS")
        if not rows:
            raise ConfigurationError(
                "the server writes no binlog", where=self.session.where,
                fix="start it with log_bin, binlog_format=ROW, binlog_row_image=FULL and binlog_row_metadata=FULL",
            )  # fmt: skip
        return str(rows[0][0]), int(rows[0][1])

    def gtids(self, file: str, place: int) -> str | None:
        """Return the transactions up to a place between two of them; MySQL has to be asked in another way."""
        if not self.is_mariadb:
            return None
        found = self.session.value(f"SELECT BINLOG_GTID_POS({literal(file)}, {place})")
        return None if found is None else _text(found)

    def files(self) -> list[tuple[str, int]]:
        """Return the files of the log, oldest first, and their sizes."""
        return [(str(row[0]), int(row[1])) for row in self.session.rows("SHOW BINARY LOGS")]

    def behind(self, file: str, place: int) -> int | None:
        """Return how many bytes of log come after a place; None: its file is gone."""
        files = self.files()
        if file not in {name for name, _ in files}:
            return None
        number = file_number(file)
        return sum(size for name, size in files if file_number(name) >= number) - place

    def setting(self, name: str) -> str | None:
        """Return a global setting as text; None: this server does not know it."""
        rows = self.session.rows(f"SHOW GLOBAL VARIABLES LIKE {literal(name)}")
        return str(rows[0][1]) if rows else None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
