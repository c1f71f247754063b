"""Owners of a table as Dagster writes them, out of the `team` of a contract."""

from __future__ import annotations

from typing import Any


def read_owners(team: Any) -> tuple[str, ...]:
    """Return `team:NAME` for a named team, and the addresses of members whose role is owner and who have not left."""
    if isinstance(team, dict):
        name, members = team.get("name"), team.get("members") or []
    else:
        name, members = None, team if isinstance(team, list) else []
    owners = [f"team:{name}"] if name else []
    for member in members:
        address = str(member.get("username", ""))
        if "owner" in str(member.get("role", "")).lower() and "@" in address and not member.get("dateOut"):
            owners.append(address)
    return tuple(dict.fromkeys(owners))
