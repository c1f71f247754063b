"""An API of `pages` pages that answers after `seconds`: prints its address, and serves until it is ended."""

from __future__ import annotations

import json
import sys
import threading

from tests.servers.http_api import running_api


def main(pages: str, seconds: str) -> None:
    with running_api() as api:
        api.delay = float(seconds)
        for n in range(int(pages) * 100):
            record = {"id": n, "name": f"customer number {n}", "amount": n / 8, "note": f"a note of some length {n}"}
            api.records.setdefault("orders", []).append((n, json.dumps(record).encode()))
        print(api.url, flush=True)
        threading.Event().wait()


main(*sys.argv[1:])
