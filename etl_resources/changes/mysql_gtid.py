"""Which transactions a position holds, by the global names that both systems give them."""

from __future__ import annotations

import uuid
from bisect import bisect_right
from dataclasses import dataclass, field
from struct import pack


@dataclass(slots=True)
class MariadbSet:
    """MariaDB: the last transaction of each replication domain."""

    last: dict[int, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> MariadbSet:
        """Return the set that the server writes as `0-1-100,1-1-7`."""
        return cls({int(name.split("-")[0]): name for part in text.split(",") if (name := part.strip())})

    def add(self, name: str) -> None:
        """Take in a transaction."""
        self.last[int(name.split("-", maxsplit=1)[0])] = name

    def holds(self, name: str) -> bool:
        """Return whether a transaction is in it: in a domain, numbers grow."""
        domain, _, number = name.split("-")
        known = self.last.get(int(domain))
        return known is not None and int(number) <= int(known.rsplit("-", 1)[1])

    def __str__(self) -> str:
        return ",".join(self.last[domain] for domain in sorted(self.last))


@dataclass(slots=True)
class MysqlSet:
    """MySQL: closed intervals of numbers by server."""

    intervals: dict[str, list[list[int]]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> MysqlSet:
        """Return the set that the server writes as `uuid:1-5:7,uuid:1`.

        Raises:
            ValueError: it has tags (MySQL 8.4), which are not followed.
        """
        found = cls()
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, *spans = part.lower().split(":")
            for span in spans:
                first, _, last = span.partition("-")
                found._insert(name, int(first), int(last or first))
        return found

    def add(self, name: str) -> None:
        """Take in a transaction."""
        server, number = name.rsplit(":", 1)
        self._insert(server, int(number), int(number))

    def holds(self, name: str) -> bool:
        """Return whether a transaction is in it."""
        server, number = name.rsplit(":", 1)
        spans = self.intervals.get(server, [])
        at = bisect_right(spans, int(number), key=lambda span: span[0]) - 1
        return at >= 0 and int(number) <= spans[at][1]

    def _insert(self, server: str, first: int, last: int) -> None:
        spans = self.intervals.setdefault(server, [])
        if spans and spans[-1][0] <= first <= spans[-1][1] + 1:
            spans[-1][1] = max(last, spans[-1][1])
            return
        merged: list[list[int]] = []
        for begin, end in sorted([*spans, [first, last]]):
            if merged and begin <= merged[-1][1] + 1:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([begin, end])
        self.intervals[server] = merged

    def encoded(self) -> bytes:
        """Return it in the form of COM_BINLOG_DUMP_GTID, whose intervals are half open."""
        parts = [pack("<Q", len(self.intervals))]
        for server in sorted(self.intervals):
            spans = self.intervals[server]
            parts += [uuid.UUID(server).bytes, pack("<Q", len(spans))]
            parts += [pack("<QQ", first, last + 1) for first, last in spans]
        return b"".join(parts)

    @classmethod
    def decoded(cls, data: bytes) -> MysqlSet:
        """Return the set of a PREVIOUS_GTIDS event.

        Raises:
            ValueError: it has tags.
        """
        # The form of servers that know tags: its number stands at both ends, and a tag follows each server's name.
        with_tags = data[7] == 1
        servers = int.from_bytes(data[1:7] if with_tags else data[:8], "little")
        found, at = cls(), 8
        for _ in range(servers):
            name, at = str(uuid.UUID(bytes=data[at : at + 16])), at + 16
            if with_tags:
                if data[at]:
                    raise ValueError("tagged GTIDs")
                at += 1
            count, at = int.from_bytes(data[at : at + 8], "little"), at + 8
            for _ in range(count):
                first, behind = (int.from_bytes(data[at + n : at + n + 8], "little") for n in (0, 8))
                found._insert(name, first, behind - 1)
                at += 16
        return found

    def __str__(self) -> str:
        spans = {s: ":".join(str(a) if a == b else f"{a}-{b}" for a, b in v) for s, v in self.intervals.items()}
        return ",".join(f"{server}:{spans[server]}" for server in sorted(spans))


GtidSet = MariadbSet | MysqlSet


def parse_set(text: str, *, mariadb: bool) -> GtidSet:
    """Return the set that a server of either kind has written."""
    return MariadbSet.parse(text) if mariadb else MysqlSet.parse(text)
