from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import stamina
from stamina.instrumentation import RetryDetails, get_on_retry_hooks, set_on_retry_hooks

from etl_resources.exceptions import CredentialsRejectedError, UnavailableError
from etl_resources.resilience import Policy


class Flaky:
    """Fails `failures` times with `error`, then answers 42."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures, self.calls = failures, 0
        self.error = error or UnavailableError("no answer", where="test")

    def __call__(self, password: str = "") -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return 42


@pytest.fixture
def waits() -> Iterator[list[float]]:
    """Collects how long the policy wants to wait."""
    seen: list[float] = []

    def note(details: RetryDetails) -> None:
        seen.append(details.wait_for)

    before = get_on_retry_hooks()
    set_on_retry_hooks([note])
    try:
        yield seen
    finally:
        set_on_retry_hooks(before)


QUICK = Policy(first_wait=0.001, longest_wait=0.002)


def test_what_is_transient_is_tried_again() -> None:
    flaky = Flaky(failures=4)
    assert QUICK.call(flaky) == 42
    assert flaky.calls == 5


def test_what_is_not_transient_is_tried_once() -> None:
    """A refused password does not get better, and asking again locks the account."""
    for error in (CredentialsRejectedError("no", where="test"), ValueError("a mistake in the code")):
        flaky = Flaky(failures=1, error=error)
        with pytest.raises(type(error)):
            QUICK.call(flaky)
        assert flaky.calls == 1


def test_the_last_error_is_raised_when_the_attempts_are_used_up() -> None:
    flaky = Flaky(failures=9)
    with pytest.raises(UnavailableError, match="no answer"):
        QUICK.model_copy(update={"attempts": 3}).call(flaky)
    assert flaky.calls == 3


def test_no_attempt_starts_after_the_deadline() -> None:
    flaky = Flaky(failures=10_000)
    with pytest.raises(UnavailableError):
        Policy(attempts=10_000, deadline=0.05, first_wait=0.01, longest_wait=0.01).call(flaky)
    assert flaky.calls < 200


def test_the_ceiling_of_the_waits_doubles_up_to_the_longest() -> None:
    policy = Policy(first_wait=0.5, longest_wait=30)
    assert [policy.ceiling(n) for n in (1, 2, 3, 6, 7, 10_000)] == [0.5, 1, 2, 16, 30, 30]


def test_waits_are_spread_over_the_whole_range(waits: list[float]) -> None:
    """Full jitter: clients that failed together come back apart."""
    for _ in range(40):
        Policy(first_wait=0.002, longest_wait=0.002).call(Flaky(failures=1))
    assert len(waits) == 40
    assert all(0 <= wait <= 0.002 for wait in waits)
    assert min(waits) < 0.0007
    assert max(waits) > 0.0013


def test_a_test_can_take_the_clock_out() -> None:
    with stamina.set_testing(True, attempts=3):
        flaky = Flaky(failures=2)
        assert Policy(first_wait=3600, longest_wait=3600, deadline=1e6).call(flaky) == 42


def test_arguments_are_not_logged(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.DEBUG):
        QUICK.call(Flaky(failures=1), password="geheim")
    out = capsys.readouterr()
    assert "geheim" not in caplog.text + out.out + out.err
