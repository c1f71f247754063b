from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from etl_resources.circuit import FAILURES, PAUSE, Circuit
from etl_resources.exceptions import CredentialsRejectedError, EtlError, UnavailableError


class Shared:
    """A store and a clock that all circuits of a test share, as processes share the instance's storage."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.states: dict[str, Mapping[str, Any]] = {}

    def load(self, connection: str) -> Mapping[str, Any] | None:
        return self.states.get(connection)

    def save(self, connection: str, state: Mapping[str, Any]) -> None:
        self.states[connection] = dict(state)

    def circuit(self, connection: str = "shop") -> Circuit:
        return Circuit(connection, self, lambda: self.now)

    def word(self) -> str:
        return self.circuit().state().word(self.now)


@pytest.fixture
def shared() -> Shared:
    return Shared()


def fail(circuit: Circuit, error: EtlError | None = None) -> None:
    with pytest.raises(EtlError), circuit.guard():
        raise error or UnavailableError("connection refused", where="shop")


def opened(shared: Shared) -> None:
    for _ in range(FAILURES):
        fail(shared.circuit())


def test_a_circuit_opens_after_failures_in_a_row_and_every_process_sees_it(shared: Shared) -> None:
    for n in range(FAILURES):
        assert shared.word() == "closed", n
        fail(shared.circuit())
    assert shared.word() == "open"
    reached = False
    with pytest.raises(UnavailableError) as caught, shared.circuit().guard():
        reached = True
    assert not reached, "the far end is left alone"
    assert f"failed {FAILURES} times in a row, at last with: connection refused" in caught.value.what
    assert "asked again after" in caught.value.fix


def test_a_success_in_between_starts_the_count_anew(shared: Shared) -> None:
    for _ in range(3):
        for _ in range(FAILURES - 1):
            fail(shared.circuit())
        with shared.circuit().guard():
            pass
    assert shared.word() == "closed"


def test_what_does_not_pass_by_itself_says_nothing_about_the_far_end(shared: Shared) -> None:
    for _ in range(3 * FAILURES):
        fail(shared.circuit(), CredentialsRejectedError("no", where="shop"))
    assert shared.word() == "closed"
    with pytest.raises(ZeroDivisionError), shared.circuit().guard():
        raise ZeroDivisionError


def test_after_the_pause_one_may_try_and_the_others_wait_for_it(shared: Shared) -> None:
    opened(shared)
    shared.now += PAUSE + 1
    assert shared.word() == "half-open"
    with shared.circuit().guard(), pytest.raises(UnavailableError, match="is open"), shared.circuit().guard():
        pass
    assert shared.word() == "closed"


def test_a_trial_that_fails_opens_it_again(shared: Shared) -> None:
    opened(shared)
    shared.now += PAUSE + 1
    fail(shared.circuit())
    assert shared.word() == "open"


def test_a_trial_that_is_killed_leaves_the_next_trial_to_another(shared: Shared) -> None:
    opened(shared)
    shared.now += PAUSE + 1
    with pytest.raises(KeyboardInterrupt), shared.circuit().guard():
        raise KeyboardInterrupt
    assert shared.word() == "open"
    shared.now += PAUSE + 1
    assert shared.word() == "half-open"


def test_connections_have_circuits_of_their_own(shared: Shared) -> None:
    opened(shared)
    with shared.circuit("warehouse").guard():
        pass
