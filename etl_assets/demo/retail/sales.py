"""Sales: a long CSV file, made and written chunk by chunk, and what each record means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from etl_assets.demo.retail import customers, products
from etl_assets.demo.retail import vocabulary as words
from etl_assets.demo.retail.columns import (
    Flags,
    Ints,
    Text,
    choose,
    clock,
    csv_lines,
    deal,
    joined,
    moments,
    money,
    money_text,
    money_with_signs,
    padded,
    pick,
)
from etl_assets.demo.retail.records import BAD_VERSION, UNREADABLE, VERSION, Records, lay_out

COLUMNS = (
    "transaction_id", "customer_id", "product_id", "sales_rep_id", "transaction_date", "quantity", "unit_price",
    "discount_amount", "total_amount", "status", "payment_method", "updated_at",
)  # fmt: skip

KINDS = {
    "customer blank": (0.006, "rejected:required.customer_id"),
    "customer unknown": (0.006, "rejected:foreign_key.customer_id"),
    "product blank": (0.006, "rejected:required.product_id"),
    "product unknown": (0.006, "rejected:foreign_key.product_id"),
    "quantity zero": (0.003, "rejected:quantity_sign"),
    "quantity negative": (0.005, "rejected:quantity_sign"),
    "quantity no number": (0.002, "rejected:cast.quantity"),
    "total wrong": (0.008, "rejected:total_agrees"),
    "date unreadable": (0.002, "rejected:date.sold_at"),
    "test record": (0.004, "filtered:not_a_test"),
    "line too long": (0.001, UNREADABLE),
    "line too short": (0.001, UNREADABLE),
}
STATUSES = ("completed", "returned", "cancelled")
TOLERANCE = 5
"""Cents by which a reported total may differ from quantity x price - discount."""

SILVER = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("customer_id", pa.string()),
        ("product_id", pa.string()),
        ("sales_rep_id", pa.string()),
        ("sold_at", pa.timestamp("us")),
        ("quantity", pa.int64()),
        ("unit_price", pa.decimal128(12, 2)),
        ("discount_amount", pa.decimal128(12, 2)),
        ("total_amount", pa.decimal128(12, 2)),
        ("line_total", pa.decimal128(12, 2)),
        ("status", pa.string()),
        ("payment_method", pa.string()),
        ("updated_at", pa.timestamp("us")),
    ]
)

_CHUNK = 100_000
_FIRST_SALE, _LAST_SALE = 1_733_011_200, 1_751_328_000  # 2024-12-01 to 2025-06-30


@dataclass(frozen=True)
class Shop:
    """What sales refer to: the numbers of customers and products that silver keeps, and of those that it does not."""

    customers: Ints
    absent_customers: Ints
    products: Ints
    absent_products: Ints
    prices: Ints
    """In cents, one for each of `products`."""


@dataclass(frozen=True)
class Lines:
    """What the records say, one entry per record: clean numbers, amounts in cents, seconds since 1970."""

    transaction: Ints
    customer: Ints
    """Index into `Shop.customers`, for those records that are kept."""
    product: Ints
    sold_at: Ints
    updated_at: Ints
    quantity: Ints
    price: Ints
    discount: Ints
    status: Ints

    @property
    def total(self) -> Ints:
        """Quantity x price - discount, in cents."""
        return self.quantity * self.price - self.discount


@dataclass(frozen=True)
class Chunk:
    """Some records of the sales file and their truth."""

    records: Records
    clean: Lines
    text: Text
    silver: pa.Table
    """What silver must hold of a record, if it is kept."""


def make(rng: np.random.Generator, rows: int, shop: Shop) -> Iterator[Chunk]:
    """Make `rows` sales records, about a hundred thousand at a time."""
    chunks = -(-rows // _CHUNK)
    transactions = 0
    for size in np.diff(np.linspace(0, rows, chunks + 1).astype(np.int64)):
        records = lay_out(rng, int(size), KINDS, bad_version="rejected:total_agrees")
        yield _chunk(rng, records, transactions, shop)
        transactions += records.things


def _chunk(rng: np.random.Generator, records: Records, transactions: int, shop: Shop) -> Chunk:
    clean = _clean(rng, records, transactions, shop)
    total = clean.total
    reported = total + rng.integers(-TOLERANCE, TOLERANCE + 1, records.things)[records.thing]
    wrong = TOLERANCE + rng.integers(1, 50_000, len(total)) ** rng.integers(0, 2, len(total))  # 6 cents, often
    reported = np.where(records.are("total wrong", BAD_VERSION), total + wrong, reported)
    rep = rng.integers(0, 15, records.things)[records.thing]
    rep_text = pick([*(f"REP{number:03d}" for number in range(1, 15)), None], rep)
    payment = pick(words.PAYMENT_METHODS, rng.integers(0, len(words.PAYMENT_METHODS), records.things)[records.thing])
    status = pick(STATUSES, clean.status)
    style = deal(rng, len(total), {"signs": 0.01}, rest="plain") == "signs"
    fields = {
        "transaction_id": joined("TXN", padded(clean.transaction, 8)),
        "customer_id": _customer_ids(rng, records, clean, shop),
        "product_id": _product_ids(rng, records, clean, shop),
        "sales_rep_id": rep_text,
        "transaction_date": _dates(rng, records, clean.sold_at),
        "quantity": pc.if_else(
            pa.array(records.are("quantity no number")), "three", pc.cast(pa.array(clean.quantity), pa.string())
        ),
        "unit_price": _amounts(clean.price, style),
        "discount_amount": money_text(clean.discount),
        "total_amount": _amounts(reported, style),
        "status": _statuses(rng, records, status),
        "payment_method": payment,
        "updated_at": clock(clean.updated_at),
    }
    silver = pa.table(
        {
            "transaction_id": fields["transaction_id"],
            "customer_id": joined("C", padded(shop.customers[clean.customer], 6)),
            "product_id": joined("P", padded(shop.products[clean.product], 6)),
            "sales_rep_id": rep_text,
            "sold_at": moments(clean.sold_at),
            "quantity": pa.array(clean.quantity),
            "unit_price": money(clean.price),
            "discount_amount": money(clean.discount),
            "total_amount": money(reported),
            "line_total": money(total),
            "status": status,
            "payment_method": payment,
            "updated_at": moments(clean.updated_at),
        },
        schema=SILVER,
    )
    text = csv_lines(
        [fields[name] for name in COLUMNS],
        too_long=records.are("line too long"),
        too_short=records.are("line too short"),
    )
    return Chunk(records, clean, text, silver)


def _clean(rng: np.random.Generator, records: Records, transactions: int, shop: Shop) -> Lines:
    things, thing = records.things, records.thing
    newer = records.are(VERSION, BAD_VERSION)
    # Squared, so that some customers come often and others never.
    customer = (rng.random(things) ** 2 * len(shop.customers)).astype(np.int64)[thing]
    product = rng.integers(0, len(shop.products), things)[thing]
    status = rng.choice(len(STATUSES), things, p=[0.94, 0.04, 0.02])[thing]
    ill = records.are("quantity zero", "quantity negative")
    status = np.where(ill, 0, status)
    quantity = rng.integers(1, 10, things)[thing] + newer
    price = shop.prices[product] * rng.integers(90, 111, things)[thing] // 100
    discount = quantity * price * rng.integers(0, 16, things)[thing] // 100
    sign = np.where((status == STATUSES.index("returned")) | records.are("quantity negative"), -1, 1)
    sign = np.where(records.are("quantity zero"), 0, sign)
    sold_at = rng.integers(_FIRST_SALE, _LAST_SALE, things)[thing]
    updated_at = sold_at + rng.integers(0, 3600, things)[thing] + 86_400 * newer
    return Lines(
        transactions + thing + 1,
        customer,
        product,
        sold_at,
        updated_at,
        sign * quantity,
        price,
        sign * discount,
        status,
    )


def _customer_ids(rng: np.random.Generator, records: Records, clean: Lines, shop: Shop) -> Text:
    unknown = shop.absent_customers[rng.integers(0, len(shop.absent_customers), len(clean.customer))]
    number = np.where(records.are("customer unknown"), unknown, shop.customers[clean.customer])
    style = deal(rng, len(number), {"long": 0.02, "dash": 0.01, "lower": 0.01}, rest="plain")
    return _blank(customers.foreign_ids(style, number), records.are("customer blank"))


def _product_ids(rng: np.random.Generator, records: Records, clean: Lines, shop: Shop) -> Text:
    unknown = shop.absent_products[rng.integers(0, len(shop.absent_products), len(clean.product))]
    number = np.where(records.are("product unknown"), unknown, shop.products[clean.product])
    style = deal(rng, len(number), {"long": 0.01, "dash": 0.01, "item": 0.01}, rest="plain")
    return _blank(products.foreign_ids(style, number), records.are("product blank"))


def _blank(column: Text, where: Flags) -> Text:
    return pc.if_else(pa.array(where), pa.scalar(None, pa.string()), column)


def _amounts(cents: Ints, with_signs: npt.NDArray[np.bool_]) -> Text:
    signed = joined('"', money_with_signs(cents[with_signs]), '"')
    return pc.replace_with_mask(money_text(cents), pa.array(with_signs), signed)


def _dates(rng: np.random.Generator, records: Records, seconds: Ints) -> Text:
    style = deal(rng, len(seconds), {"american": 0.01, "zulu": 0.01}, rest="iso")
    column = pa.array(seconds).cast(pa.timestamp("s"))
    text = clock(seconds)
    for name, pattern in (("american", "%m/%d/%Y %H:%M:%S"), ("zulu", "%Y-%m-%dT%H:%M:%SZ")):
        mask = pa.array(style == name)
        text = pc.replace_with_mask(text, mask, pc.strftime(column.filter(mask), pattern))
    return pc.if_else(pa.array(records.are("date unreadable")), "last Tuesday", text)


def _statuses(rng: np.random.Generator, records: Records, status: Text) -> Text:
    style = deal(rng, len(status), {"upper": 0.01, "padded": 0.01}, rest="plain")
    text = choose(style, {"upper": pc.utf8_upper(status), "padded": joined(status, " ")}, status)
    return pc.if_else(pa.array(records.are("test record")), "test", text)
