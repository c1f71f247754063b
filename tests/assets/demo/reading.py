"""What a careful person would make of the raw retail files, record by record, with the standard library only."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

SEGMENTS = {
    "standard", "std", "basic", "bsc", "premium", "prem", "vip", "v.i.p.", "vvip", "",
}  # fmt: skip
SALE_DATES = ("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ")
CUSTOMER_DATES = ("%Y-%m-%d", "%m/%d/%Y", "%d-%b-%Y")


class Found(NamedTuple):
    """One record of a file: where it starts, its key, its fate by its own content, and when it was written."""

    line: int | None
    key: str
    fate: str
    updated_at: str


def canonical(identifier: str, letter: str) -> str:
    """Give every way of writing an id the one form."""
    digits = re.sub(r"[^0-9]", "", identifier)
    return f"{letter}{int(digits):06d}" if digits else identifier.strip()


def parse_date(text: str, formats: tuple[str, ...]) -> datetime | None:
    """Return the time in the first format that fits."""
    for pattern in formats:
        try:
            return datetime.strptime(text, pattern).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


def csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the physical line on which each record starts, and its fields; the header first."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        start = 1
        for fields in reader:
            yield start, fields
            start = reader.line_num + 1


def with_versions(found: list[Found]) -> list[Found]:
    """Of the good records of a key only the newest is kept, of equally new ones the last."""
    newest: dict[str, tuple[str, int]] = {}
    for position, record in enumerate(found):
        if record.fate == "kept":
            newest[record.key] = max(newest.get(record.key, ("", -1)), (record.updated_at, position))
    return [
        record._replace(fate="superseded")
        if record.fate == "kept" and newest[record.key][1] != position
        else record
        for position, record in enumerate(found)
    ]  # fmt: skip


def customers(path: Path) -> list[Found]:
    """Read customers.csv."""
    records = csv_records(path)
    _, header = next(records)
    return with_versions([_customer(line, fields, header) for line, fields in records])


def _customer(line: int, fields: list[str], header: list[str]) -> Found:
    row = dict(zip(header, fields, strict=False))
    key = canonical(row["customer_id"], "C")
    updated = row.get("updated_at", "")
    if len(fields) != len(header):
        fate = "unreadable"
    elif row["email"].endswith("@test.invalid"):
        fate = "filtered:not_a_test"
    elif not key:
        fate = "rejected:key.customer_id"
    elif not re.fullmatch(r"C[0-9]{6}", key):
        fate = "rejected:pattern.customer_id"
    elif row["segment"].lower() not in SEGMENTS:
        fate = "rejected:allowed.segment"
    elif parse_date(row["registration_date"], CUSTOMER_DATES) is None:
        fate = "rejected:date.registered_on"
    else:
        fate = "kept"
    return Found(line, key, fate, updated)


def products(path: Path) -> list[Found]:
    """Read products.json."""
    documents = json.loads(path.read_text(encoding="utf-8"))["products"]
    return with_versions([_product(document) for document in documents])


def _product(document: dict[str, Any]) -> Found:
    key, price = canonical(document["product_id"], "P"), document["specifications"].get("price")
    if not key:
        fate = "rejected:key.product_id"
    elif price is None:
        fate = "rejected:required.price"
    elif price <= 0:
        fate = "rejected:range.price"
    else:
        fate = "kept"
    return Found(None, key, fate, document["metadata"]["updated_at"])


def sales(path: Path, known_customers: set[str], known_products: set[str]) -> list[Found]:
    """Read sales.csv."""
    records = csv_records(path)
    _, header = next(records)
    return with_versions([_sale(line, fields, header, known_customers, known_products) for line, fields in records])


def _sale(
    line: int, fields: list[str], header: list[str], known_customers: set[str], known_products: set[str]
) -> Found:
    row = dict(zip(header, fields, strict=False))
    if len(fields) != len(header):
        return Found(line, row["transaction_id"], "unreadable", "")
    customer, product = canonical(row["customer_id"], "C"), canonical(row["product_id"], "P")
    if row["status"] == "test":
        fate = "filtered:not_a_test"
    elif not customer or not product:
        fate = f"rejected:required.{'product_id' if customer else 'customer_id'}"
    elif customer not in known_customers:
        fate = "rejected:foreign_key.customer_id"
    elif product not in known_products:
        fate = "rejected:foreign_key.product_id"
    elif parse_date(row["transaction_date"], SALE_DATES) is None:
        fate = "rejected:date.sold_at"
    elif not re.fullmatch(r"-?[0-9]+", row["quantity"]):
        fate = "rejected:cast.quantity"
    else:
        fate = _sale_by_its_numbers(row)
    return Found(line, row["transaction_id"], fate, row["updated_at"])


def _sale_by_its_numbers(row: dict[str, str]) -> str:
    quantity = int(row["quantity"])
    price, discount, total = (
        Decimal(row[column].replace("$", "").replace(",", ""))
        for column in ("unit_price", "discount_amount", "total_amount")
    )
    if quantity == 0 or (quantity < 0) != (row["status"].strip().lower() == "returned"):
        return "rejected:quantity_sign"
    if abs(total - (quantity * price - discount)) > Decimal("0.05"):
        return "rejected:total_agrees"
    return "kept"
