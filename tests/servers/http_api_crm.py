"""A small customer relationship system, dirty on purpose, and what must become of each of its records."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.servers.http_api import Api, Asked, Told

STREAMS = ("accounts", "contacts", "opportunities")
_START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass
class Crm:
    """`records[stream][id]` is the record as it is now; `fates[stream][id]` is kept, or the rule that rejects it."""

    records: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {name: {} for name in STREAMS})
    fates: dict[str, dict[str, str]] = field(default_factory=lambda: {name: {} for name in STREAMS})
    clock: datetime = _START

    def put(self, stream: str, record: dict[str, Any], fate: str = "kept", *, tick: bool = True) -> None:
        """Write a record; now and then two have the same moment."""
        self.clock += timedelta(seconds=7 if tick else 0)
        self.records[stream].pop(record["id"], None)
        self.records[stream][record["id"]] = {**record, "modified_at": f"{self.clock:%Y-%m-%dT%H:%M:%SZ}"}
        self.fates[stream][record["id"]] = fate

    def counts(self, stream: str) -> Counter[str]:
        """Return how many records have which fate."""
        return Counter(self.fates[stream].values())

    def kept(self, stream: str) -> set[str]:
        """Return the ids of the records that silver must hold."""
        return {name for name, fate in self.fates[stream].items() if fate == "kept"}

    def serve(self, api: Api, prefix: str = "/crm") -> None:
        """Let the API have what is here; the token is `crm-token`."""
        for stream in STREAMS:
            api.routes[f"{prefix}/{stream}"] = lambda asked, stream=stream: self._listing(stream, asked)  # type: ignore[misc]

    def _listing(self, stream: str, asked: Asked) -> Told:
        if asked.headers.get("authorization") != "Bearer crm-token":
            return Told(b'{"error": "the token is not known"}', 401)
        since = asked.query.get("modified_since", "")
        found = sorted(
            (r for r in self.records[stream].values() if r["modified_at"] >= since),
            key=lambda r: (r["modified_at"], r["id"]),
        )
        at, size = int(asked.query.get("offset", 0)), min(int(asked.query.get("limit", 100)), 500)
        return Told(json.dumps({"total": len(found), "data": found[at : at + size]}, ensure_ascii=False).encode())


def filled(accounts: int, seed: int = 7) -> Crm:
    """Return a system with so many accounts, and about three contacts and two opportunities for each."""
    crm, rng = Crm(), random.Random(seed)
    for n in range(accounts):
        _account(crm, rng, n)
    good = sorted(crm.kept("accounts"))
    for n in range(accounts * 3):
        _contact(crm, rng, n, good)
    people = sorted(crm.kept("contacts"))
    for n in range(accounts * 2):
        _opportunity(crm, rng, n, good, people)
    return crm


def _account(crm: Crm, rng: random.Random, n: int) -> None:
    fate, name, revenue = "kept", f"  Company   {n} Łtd. ", round(rng.uniform(1e4, 1e8), 2)
    industry = rng.choice(["Manufacturing", "Mfg", "SaaS", "Software & Services", "Banking", "Retail", None])
    number: Any = f"A{n:05d}"
    if n % 23 == 5:
        fate, revenue = "range.annual_revenue", -revenue
    elif n % 29 == 7:
        fate, industry = "allowed.industry", "Alchemy"
    elif n % 31 == 9:
        fate, number = "pattern.account_id", f"X-{n}"
    address = {"city": rng.choice(["Köln", "Paris", "Oslo", None]), "country": rng.choice(["Germany", "FR", "norway"])}
    record = {
        "id": number, "name": name, "industry": industry, "annual_revenue": revenue, "address": address,
        "owner": {"email": f"seller{n % 4}@example.org"},
    }  # fmt: skip
    crm.put("accounts", record, fate, tick=n % 3 != 0)


def _contact(crm: Crm, rng: random.Random, n: int, accounts: list[str]) -> None:
    fate, account = "kept", rng.choice(accounts)
    if n % 37 == 4:
        fate, account = "foreign_key.account_id", "A99999"
    email = f"Person.{n}@Example.ORG " if n % 5 else "nobody at example"
    crm.put("contacts", {"id": f"C{n}", "account_id": account, "name": f"Person {n}", "email": email}, fate)


def _opportunity(crm: Crm, rng: random.Random, n: int, accounts: list[str], people: list[str]) -> None:
    stage = rng.choice(["Prospect", "PROPOSAL ", "negotiation", "Won", "lost"])
    chance = {"won": 100, "lost": 0}.get(stage.strip().lower(), rng.randrange(5, 95))
    fate, account, contact = "kept", rng.choice(accounts), rng.choice([None, *people[:20]])
    if n % 19 == 3:
        fate, chance, stage = "closed_deals_are_certain", 50, "won"
    elif n % 41 == 6:
        fate, contact = "foreign_key.contact_id", "C-gone"
    elif n % 43 == 8:
        fate, stage, chance = "allowed.stage", "dreaming", 10
    amount = {"value": round(rng.uniform(100, 90_000), 2), "currency": rng.choice(["EUR", "USD"])}
    record = {
        "id": f"O{n}", "account_id": account, "contact_id": contact, "stage": stage, "amount": amount,
        "probability": chance, "close_date": f"2025-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}",
    }  # fmt: skip
    crm.put("opportunities", record, fate)
