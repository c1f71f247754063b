"""Bytes of the binlog as the protocol defines them, and statements as the log holds them."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from etl_resources.changes import mysql_events as ev
from etl_resources.changes.mysql_dump import refusal
from etl_resources.changes.mysql_gtid import MariadbSet, MysqlSet
from etl_resources.changes.mysql_json import json_text
from etl_resources.changes.mysql_position import Cursor, Progress, encoded, following
from etl_resources.changes.mysql_settings import MysqlLogCapture
from etl_resources.changes.mysql_statements import control, meaning
from etl_resources.changes.mysql_types import parse
from etl_resources.exceptions import ConfigurationError, LogLostError, UnavailableError
from etl_resources.source import LogCapture
from etl_resources.sources.mysql import MysqlSource, MysqlStreamOptions

UUID = "59b96cd2-e5b1-11f1-987b-02fc00000001"


def event(kind: int, body: bytes, *, end: int = 1000, checksum: bool = True) -> bytes:
    data = ev.HEADER.pack(1_700_000_000, kind, 7, ev.HEADER_SIZE + len(body) + 4 * checksum, end, 0) + body
    return b"\0" + data + (struct.pack("<I", zlib.crc32(data)) if checksum else b"")


def packets(*events: bytes) -> bytes:
    parts = []
    for data in events:
        at = 0
        while True:
            part = data[at : at + 0xFFFFFF]
            parts.append(len(part).to_bytes(3, "little") + b"\0" + part)
            at += len(part)
            if len(part) < 0xFFFFFF:
                break
    return b"".join(parts)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_events_come_out_whole_however_the_bytes_come_in(step: int) -> None:
    framing = ev.Framing("here")
    framing.checksums = True
    sent = packets(event(ev.XID, b"12345678"), event(ev.STOP, b""), event(ev.QUERY, b"q" * 300))
    found = []
    for at in range(0, len(sent), step):
        framing.feed(sent[at : at + step])
        found += [framing.event(packet) for packet in framing.packets()]
    assert [(e.kind, len(e.body), e.size) for e in found] == [(ev.XID, 8, 31), (ev.STOP, 0, 23), (ev.QUERY, 300, 323)]


@pytest.mark.parametrize("size", [2**24 - 50, 2**24 - 25, 2**24 - 24, 2**24, 2**25 - 26])
def test_an_event_in_several_packets_is_one(size: int) -> None:
    framing = ev.Framing("here")
    framing.checksums = True
    sent = packets(event(ev.QUERY, bytes(size)), event(ev.STOP, b""))
    found = []
    for at in range(0, len(sent), 1 << 20):
        framing.feed(sent[at : at + (1 << 20)])
        found += [framing.event(packet) for packet in framing.packets()]
    assert [(e.kind, len(e.body)) for e in found] == [(ev.QUERY, size), (ev.STOP, 0)]


def test_damage_is_noticed() -> None:
    framing = ev.Framing("here")
    framing.checksums = True
    whole = event(ev.XID, b"12345678")
    assert framing.event(whole).body == b"12345678"
    for at in range(1, len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 1
        if broken[5] == ev.FORMAT or broken[5] == ev.ROTATE:
            continue
        with pytest.raises(UnavailableError, match="checksum"):
            framing.event(bytes(broken))


def test_mysql_says_when_a_transaction_was_first_committed() -> None:
    """Bytes of MySQL 9.7; and the same as a replica writes them, with the first server's time behind its own."""
    body = bytes.fromhex(
        "0059b96cd2e5b111f1987b02fc000000010300000000000000"
        "0202000000000000000300000000000000"
        "ee0f35a9c96006"
        "fc0502506201 00".replace(" ", "")
    )
    framing = ev.Framing("here")
    group = ev.group(framing.event(event(ev.GTID, body, checksum=False)))
    assert (group.gtid, group.server) == (f"{UUID}:3", UUID)
    assert group.committed == int.from_bytes(bytes.fromhex("ee0f35a9c96006"), "little")
    later = (group.committed + 5 | 1 << 55).to_bytes(7, "little")
    replicated = body[:42] + later + body[42:49] + body[49:]
    assert ev.group(framing.event(event(ev.GTID, replicated, checksum=False))).committed == group.committed
    assert ev.group(framing.event(event(ev.ANONYMOUS_GTID, body, checksum=False))).gtid is None
    assert ev.group(framing.event(event(ev.TAGGED_GTID, b"\2\0", checksum=False))).tagged


def test_a_compressed_transaction_is_its_events() -> None:
    inner = b"".join(
        event(kind, body, checksum=False)[1:] for kind, body in ((ev.QUERY, b"x" * 50), (ev.XID, b"12345678"))
    )
    squeezed = pa.compress(inner, "zstd", asbytes=True)
    for method, data in ((0, squeezed), (255, inner)):
        size = b"\xfc" + struct.pack("<H", len(data))
        way = bytes([method]) if method < 251 else b"\xfc" + struct.pack("<H", method)
        body = b"\x01\x03" + size + b"\x02" + bytes([len(way)]) + way + b"\x03\x01\x7b" + b"\x00" + data
        found = list(ev.payload(ev.Framing("here").event(event(ev.PAYLOAD, body, checksum=False))))
        assert [(e.kind, e.body) for e in found] == [(ev.QUERY, b"x" * 50), (ev.XID, b"12345678")]


def test_sets_of_transactions_are_what_the_servers_write() -> None:
    text = f"{UUID}:1-5:7:9-10,aaaaaaaa-0000-0000-0000-000000000000:3"
    found = MysqlSet.parse(text)
    assert str(found) == text
    assert [found.holds(f"{UUID}:{n}") for n in (0, 1, 5, 6, 7, 8, 10, 11)] == [
        False, True, True, False, True, False, True, False
    ]  # fmt: skip
    assert str(MysqlSet.decoded(found.encoded())) == text
    for n in (6, 8, 11, 12):
        found.add(f"{UUID}:{n}")
    assert str(found).startswith(f"{UUID}:1-12,")
    with pytest.raises(ValueError, match="invalid literal"):
        MysqlSet.parse(f"{UUID}:tag:1")
    domains = MariadbSet.parse("0-1-100,5-2-7")
    domains.add("0-3-101")
    assert str(domains) == "0-3-101,5-2-7"
    assert [domains.holds(name) for name in ("0-1-101", "0-1-102", "5-9-7", "6-1-1")] == [True, False, True, False]


def test_a_description_without_names_is_refused() -> None:
    body = b"\x12\0\0\0\0\0\1\0" + b"\1x\0\1t\0" + b"\1\3" + b"\0" + b"\0"
    with pytest.raises(ConfigurationError, match="names of columns"):
        parse(body, "here", mariadb=True)
    with pytest.raises(ConfigurationError, match="type 140"):
        parse(body.replace(b"\1\3", b"\1\x8c"), "here", mariadb=True)


def test_places_grow_with_files_and_survive_json() -> None:
    cursor = Cursor(
        "1", 3, "binlog.000009", 77, 5, (46, 99), "0-1-2", {"X": ("binlog.000001", 4)}, Progress(1, ("a",), 2)
    )
    assert Cursor.from_position(cursor.to_position()) == cursor
    assert encoded(0, "binlog.000002", 4) > encoded(0, "binlog.000001", 2**33)
    assert encoded(0, "b.1000000", 4) > encoded(0, "b.999999", 4)
    assert following("binlog.000009") == "binlog.000010"
    assert following("binlog.999999") == "binlog.1000000"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TRUNCATE t", "truncate"), ("truncate table `d`.`t`", "truncate"), ("TRUNCATE TABLE other", "nothing"),
        ("/* x */ DROP TABLE IF EXISTS `a`,`t` /* generated by server */", "broken"), ("DROP TABLE e.t", "nothing"),
        ("DROP TEMPORARY TABLE t", "nothing"), ("DROP DATABASE d", "broken"), ("DROP DATABASE e", "nothing"),
        ("RENAME TABLE x TO t", "broken"), ("ALTER TABLE t RENAME COLUMN a TO b", "altered"),
        ("ALTER TABLE t RENAME AS u", "broken"), ("ALTER TABLE t ADD a int COMMENT 'RENAME TO x'", "altered"),
        ("ALTER TABLE t DROP PARTITION p", "broken"), ("ALTER TABLE x EXCHANGE PARTITION p WITH TABLE t", "broken"),
        ("INSERT INTO t VALUES (1)", "broken"), ("INSERT INTO o VALUES ('t')", "nothing"),
        ("CREATE TABLE t (id int)", "altered"), ("CREATE INDEX i ON t (a)", "altered"),
        ("GRANT SELECT ON t TO u", "nothing"),
        ("UPDATE e.x JOIN d.t USING (id) SET a = 1", "broken"), ("DROP TABLE T", "nothing"),
    ],
)  # fmt: skip
def test_what_a_statement_means_for_a_table(text: str, expected: str) -> None:
    assert meaning(text, "d", ("d", "t"), folded=False) == expected


def test_names_may_differ_in_case_where_the_server_takes_no_notice() -> None:
    assert meaning("DROP TABLE `T`", "D", ("d", "t"), folded=True) == "broken"
    texts = ("BEGIN", "COMMIT", "ROLLBACK", "ROLLBACK TO `s`", "XA END X'00'", "DROP TABLE t")
    assert [control(text) for text in texts] == [
        "begin", "commit", "rollback", "nothing", "nothing", None
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Could not find first log file name in binary log index file", LogLostError),
        ("A slave with the same server_uuid/server_id as this slave has connected to the master", UnavailableError),
        ("log event entry exceeded max_allowed_packet", ConfigurationError),
    ],
)
def test_what_the_server_refuses_says_what_to_do(message: str, kind: type[Exception]) -> None:
    found = refusal(message, "here")
    assert type(found) is kind
    assert found.fix


def test_documents_of_mysql_are_the_text_that_it_shows() -> None:
    small = bytes.fromhex("00 01 00 0c 00 0b 00 01 00 05 07 00 61".replace(" ", ""))
    assert json_text(small) == '{"a": 7}'
    assert json_text(b"") == "null"
    assert json_text(b"\x0b" + struct.pack("<d", 1e20)) == "1e20"


def test_the_page_names_every_setting_and_its_example_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "connectors" / "mysql.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    (stream,) = yaml.safe_load(block)["streams"].values()
    MysqlStreamOptions(**stream["source"])
    assert MysqlSource.log_type(**stream["capture"]["log"]).mode == "continuous"
    own = set(MysqlLogCapture.model_fields) - set(LogCapture.model_fields)
    assert set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)) == own
