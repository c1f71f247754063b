"""The circuit breakers of connections, kept where every process of a deployment sees them: in Dagster's instance."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from etl_resources.circuit import Circuit, State

_KEY = "etl/circuit/"


class InstanceStore:
    """Keeps states beside the cursors of Dagster's daemon: SQLite or PostgreSQL, as the instance is configured."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._storage = instance.daemon_cursor_storage

    def load(self, connection: str) -> Mapping[str, Any] | None:
        """Return what was last saved for a connection."""
        key = _KEY + connection
        found = self._storage.get_cursor_values({key}).get(key)
        return json.loads(found) if found else None

    def save(self, connection: str, state: Mapping[str, Any]) -> None:
        """Keep the state of a connection."""
        self._storage.set_cursor_values({_KEY + connection: json.dumps(state)})


@contextmanager
def guarded(context: dg.AssetExecutionContext, connection: str | None, asset: dg.AssetKey) -> Iterator[None]:
    """Work over a connection if its circuit lets it; a change of its state becomes an observation of `asset`.

    Raises:
        UnavailableError: the circuit is open.
    """
    if connection is None:
        yield
        return
    circuit = Circuit(connection, InstanceStore(context.instance))
    before = circuit.state()
    try:
        with circuit.guard():
            yield
    finally:
        after = circuit.state()
        if after != before:
            word = after.word(time.time())
            context.log_event(
                dg.AssetObservation(
                    asset_key=asset,
                    description=f"The circuit of connection {connection} is {word}.",
                    metadata={"circuit": word, "failures in a row": after.failures, "last failure": after.reason},
                )
            )


def troubled(instance: dg.DagsterInstance, connections: Iterable[str]) -> dict[str, State]:
    """Return the connections whose last piece of work failed for a reason that may pass."""
    store = InstanceStore(instance)
    states = {name: Circuit(name, store).state() for name in connections}
    return {name: state for name, state in states.items() if state != State()}
