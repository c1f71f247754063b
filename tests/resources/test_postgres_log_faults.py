"""The change log of PostgreSQL over wires and servers that fail: nothing is lost or doubled, and it is said what to
do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from etl_resources import lifeline
from etl_resources.change_log import Changes
from etl_resources.changes import postgres_peek
from etl_resources.exceptions import ConfigurationError, CredentialsRejectedError, UnavailableError
from etl_resources.resilience import Policy
from etl_resources.secret import Secret
from tests.resources import test_postgres_log
from tests.resources.test_postgres_log import Shop
from tests.resources.test_postgres_source import write_certificate
from tests.servers.postgres import running_postgres
from tests.servers.proxy import Wire, wire_to
from tests.soaking import some

shop = test_postgres_log.shop

ONCE = Policy(attempts=1, first_wait=0.05, timeout=2.0, silence=1.0)
ROWS = 3000


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Fail a test whose block does not come back; there is no other way to see a client that hangs."""

    def stop(*_: Any) -> None:
        raise AssertionError(f"it hangs: not back within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def change_much(shop: Shop) -> None:
    """One transaction that is many messages, and one behind it."""
    shop.sql(f"INSERT INTO t SELECT n, n FROM generate_series(100, {100 + ROWS - 1}) n")
    shop.sql("UPDATE t SET v = -1 WHERE id = 1")


def whole(shop: Shop) -> None:
    """Fail unless every change since `change_much` is there once."""
    events = [(r["_pos"], r["_seq"]) for r in shop.events["t"]]
    assert len(events) == len(set(events)) == 3 + ROWS + 1
    assert len(shop.state("t", "id", "v")) == 3 + ROWS
    assert shop.state("t", "id", "v")[1,] == (1, -1)


def read_until_it_breaks(shop: Shop, wire: Wire, break_it: Callable[[], None]) -> UnavailableError:
    """Read over the wire, and break it when the first events have come; nothing of that look is committed."""
    log = shop.log(source={"port": wire.port, "resilience": ONCE})
    given = 0

    def read() -> None:
        nonlocal given
        for item in log.read(dict(shop.positions)):
            if isinstance(item, Changes):
                if not given:
                    break_it()
                given += item.batch.data.num_rows
            else:
                shop.land(log, item)

    wire.bytes_per_second = 1_000_000.0  # else all is on its way before the first of it is seen
    with limit(20), pytest.raises(UnavailableError) as caught:
        read()
    assert 0 < given < ROWS
    return caught.value


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look comes in many pieces."""
    monkeypatch.setattr("etl_resources.changes.postgres_reading.peek", small_pieces)


def small_pieces(*args: Any, **more: Any) -> Any:
    return postgres_peek.peek(*args, **more, batch_bytes=1 << 10)


@pytest.mark.usefixtures("small")
def test_a_reset_in_the_middle_of_a_peek(shop: Shop) -> None:
    shop.read()
    change_much(shop)
    with wire_to(shop.server.port) as wire:
        error = read_until_it_breaks(shop, wire, wire.break_now)
    assert str(wire.port) in error.where
    shop.read()
    whole(shop)


@pytest.mark.usefixtures("small")
def test_a_server_that_falls_silent_in_the_middle_of_a_peek(shop: Shop) -> None:
    shop.read()
    change_much(shop)
    with wire_to(shop.server.port) as wire:

        def stall() -> None:
            wire.stall_after = wire.received

        error = read_until_it_breaks(shop, wire, stall)
        assert "no answer for 1 seconds" in str(error)
    shop.read()
    whole(shop)


def test_without_the_lifeline_that_read_would_hang(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of the test above."""
    shop.read()
    with wire_to(shop.server.port) as wire:
        log = shop.log(source={"port": wire.port, "resilience": ONCE})
        with log.linked() as link:
            wire.stall_after = wire.received
            monkeypatch.setattr(lifeline.Lifeline, "_watch", lambda *_: None)
            with pytest.raises(AssertionError, match="it hangs"), limit(3):
                link.ask("SELECT 1")


def test_a_server_that_works_for_long_before_its_first_row_is_not_taken_for_gone(shop: Shop) -> None:
    shop.read()
    log = shop.log(source={"resilience": Policy(attempts=1, silence=0.3)})
    with log.linked() as link, limit(20):
        assert link.ask("SELECT pg_sleep(1.2)::text, 7")[0][1] == 7
        assert link.session.rows("SELECT pg_sleep(1.2)::text, 7")[0][1] == 7


@pytest.mark.parametrize("bytes_", some([300, 30_000, 0, 3000], 2))
def test_a_server_that_falls_silent_anywhere(shop: Shop, bytes_: int) -> None:
    """While connecting, while logging in, while it is asked what there is."""
    shop.read()
    change_much(shop)
    with wire_to(shop.server.port, stall_after=bytes_) as wire, limit(25), pytest.raises(UnavailableError):
        shop.read(shop.log(source={"port": wire.port, "resilience": ONCE}))
    shop.read()
    whole(shop)


def test_a_slow_wire_is_slow_and_no_more(shop: Shop) -> None:
    shop.read()
    change_much(shop)
    with wire_to(shop.server.port, bytes_per_second=300_000.0) as wire, limit(30):
        shop.read(shop.log(source={"port": wire.port, "resilience": ONCE}))
    whole(shop)


def test_a_server_that_is_started_anew_between_two_looks() -> None:
    """A continuous run goes on with it, even if it crashed and its slot went back."""
    with running_postgres({"wal_sender_timeout": "5s"}) as server:
        shop = Shop(server, server.database(), t="id")
        shop.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
        shop.read()
        patient = Policy(attempts=20, first_wait=0.1, longest_wait=0.3, silence=5.0)
        log = shop.log(source={"resilience": patient}, mode="continuous", every=0.05, lasts=30.0)
        wanted = iter((signal.SIGQUIT, signal.SIGINT))
        with limit(60):
            for item in log.read(dict(shop.positions)):
                shop.land(log, item)
                number = len(shop.events["t"])
                if isinstance(item, Changes):
                    continue
                if number == 3:
                    break
                if number:
                    server.stop(next(wanted))
                    server.start()
                shop.client = server.connect(shop.database)
                shop.sql(f"INSERT INTO t VALUES ({number})")
        assert [row["id"] for row in shop.events["t"]] == [0, 1, 2]
        shop.client.close()


def test_a_password_that_is_wrong_is_said_and_shown_nowhere(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_PASSWORD", "geheim")
    shop.sql("DO $$BEGIN CREATE ROLE limited LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END$$")
    shop.sql("ALTER ROLE limited PASSWORD 'another'")
    log = shop.log(source={"user": "limited", "password": Secret(env="LOG_PASSWORD")})
    for ask in (log.preflight, lambda: log.state({}), lambda: shop.read(log), lambda: log.acknowledge({"t": _PLACE})):
        with pytest.raises(CredentialsRejectedError, match="check user and password") as caught:
            ask()
        error: BaseException | None = caught.value
        while error is not None:
            assert "geheim" not in str(error) + repr(error) + repr(log.connection)
            error = error.__cause__ or error.__context__


_PLACE = {
    "system": "1", "timeline": 1, "database": "d", "slot": "s", "table": 1, "lsn": 1, "end": 2, "unseen": [],
    "view": None, "own": None, "snapshot": None,
}  # fmt: skip


def test_a_name_that_nobody_knows(shop: Shop) -> None:
    log = shop.log(source={"host": "no-such-host.invalid", "resilience": ONCE})
    for ask in (log.preflight, lambda: log.state({}), lambda: shop.read(log)):
        with pytest.raises(UnavailableError, match="no-such-host") as caught:
            ask()
        assert "no-such-host.invalid" in caught.value.where


@pytest.mark.soak
def test_a_certificate_that_nobody_trusts(tmp_path: Any) -> None:
    with running_postgres() as server:
        certificate, key = server.directory / "server.crt", server.directory / "server.key"
        write_certificate(certificate, key)
        for file in (certificate, key):
            os.chown(file, server.data.stat().st_uid, server.data.stat().st_gid)
        write_certificate(tmp_path / "other.crt", tmp_path / "other.key")
        with server.connect() as client:
            for name, value in {"ssl_cert_file": certificate, "ssl_key_file": key, "ssl": "on"}.items():
                client.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        server.stop()
        server.start()
        shop = Shop(server, server.database(), t="id")
        shop.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
        trusted = {"sslmode": "verify-full", "sslrootcert": str(certificate)}
        with pytest.raises(ConfigurationError, match="certificate") as caught:
            shop.read(shop.log(source={**trusted, "sslrootcert": str(tmp_path / "other.crt")}))
        assert "sslrootcert" in caught.value.fix
        assert shop.slot() == {}
        shop.sql("INSERT INTO t VALUES (1, 1)")
        assert [r["id"] for r in shop.read(shop.log(source=trusted))] == [1]
        shop.client.close()
