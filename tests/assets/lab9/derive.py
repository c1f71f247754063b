"""Which rules each raw record of the course data breaks, worked out record by record without any code of the project.

Reads the files with the standard library only. A record may break several rules; the pipeline names one of them.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

TOLERANCE = Decimal("0.05")
SEGMENTS = {
    "Standard": {"standard", "std"},
    "Basic": {"basic", "bsc"},
    "Premium": {"premium", "prem"},
    "VIP": {"vip", "v.i.p.", "vvip"},
    "Unknown": {""},
}
EMAIL = re.compile(r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[a-z0-9-]+(\.[a-z0-9-]+)+")


def canonical(identifier: str, letter: str) -> str:
    """`CUST0003`, `C-00003` and `C000003` are one id: the letter and six digits."""
    digits = re.sub(r"[^0-9]", "", identifier)
    return f"{letter}{int(digits):06d}" if digits else ""


def segment(spelling: str) -> str | None:
    """The segment that a spelling means; None: nobody knows."""
    return next((name for name, known in SEGMENTS.items() if spelling.strip().lower() in known), None)


def customers(folder: Path) -> Iterator[tuple[str, dict[str, str], set[str]]]:
    """Yield id, raw record and broken rules."""
    with (folder / "customers.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            identifier, broken = canonical(row["customer_id"], "C"), set()
            if not identifier:
                broken.add("required.customer_id")
            if segment(row["segment"]) is None:
                broken.add("allowed.segment")
            yield identifier, row, broken


def products(folder: Path) -> Iterator[tuple[str, dict[str, Any], set[str]]]:
    """Yield id, raw record and broken rules."""
    for product in json.loads((folder / "products.json").read_text(encoding="utf-8"))["products"]:
        identifier, broken = canonical(product["product_id"], "P"), set()
        if not identifier:
            broken.add("required.product_id")
        if product["specifications"]["price"] <= 0:
            broken.add("range.price")
        yield identifier, product, broken


def sales(folder: Path) -> Iterator[tuple[str, dict[str, str], set[str]]]:
    """Yield id, raw record and broken rules."""
    known_customers = {identifier for identifier, _, broken in customers(folder) if not broken}
    known_products = {identifier for identifier, _, broken in products(folder) if not broken}
    with (folder / "sales_transactions.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row["transaction_id"], row, _broken_by_sale(row, known_customers, known_products)


def _broken_by_sale(row: dict[str, str], known_customers: set[str], known_products: set[str]) -> set[str]:
    broken = set()
    for column, letter, known in (("customer_id", "C", known_customers), ("product_id", "P", known_products)):
        identifier = canonical(row[column], letter)
        if not identifier:
            broken.add(f"required.{column}")
        elif identifier not in known:
            broken.add(f"foreign_key.{column}")
    quantity = int(row["quantity"])
    if (row["status"] == "returned") != (quantity < 0) or quantity == 0:
        broken.add("quantity_sign")
    line_total = quantity * Decimal(row["unit_price"]) - Decimal(row["discount_amount"])
    if abs(Decimal(row["total_amount"]) - line_total) > TOLERANCE:
        broken.add("total_agrees")
    return broken


def tally(records: Iterable[tuple[str, Any, set[str]]]) -> dict[str, int]:
    """Count records by the rules they break (`a+b` where two), `kept` where none; no two of the kept share an id."""
    found = list(records)
    kept = [identifier for identifier, _, broken in found if not broken]
    assert len(kept) == len(set(kept)), "two kept records share a key: one of them is superseded"
    return dict(sorted(Counter("+".join(sorted(broken)) or "kept" for *_, broken in found).items()))


def warnings(folder: Path) -> dict[str, dict[str, int]]:
    """Count kept records that a rule only warns of: by stream and rule."""
    people = [row for _, row, broken in customers(folder) if not broken]
    goods = [product for _, product, broken in products(folder) if not broken]
    emails = [row["email"].strip().lower() for row in people]
    phones = [row["phone"] for row in people if row["phone"]]
    return {
        "customers": {
            "email_format": sum(1 for email in emails if email and not EMAIL.fullmatch(email)),
            # Fewer than ten digits reach nobody.
            "phone_e164": sum(1 for phone in phones if len(re.sub(r"[^0-9]", "", phone)) < 10),
        },
        "products": {"stock_not_negative": sum(1 for product in goods if product["inventory"]["quantity"] < 0)},
    }


def everything(folder: Path) -> dict[str, Any]:
    """Derive all that `expected.json` holds."""
    kept_segments = Counter(segment(row["segment"]) for _, row, broken in customers(folder) if not broken)
    return {
        "fates": {
            "customers": tally(customers(folder)),
            "products": tally(products(folder)),
            "sales": tally(sales(folder)),
        },
        "warnings": warnings(folder),
        "segments": dict(sorted(kept_segments.items())),
    }
