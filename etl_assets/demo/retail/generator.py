"""Writes the shop's three files, and beside them what must become of every record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl_assets.demo.retail import customers, products, sales
from etl_assets.demo.retail.columns import Ints, text_bytes
from etl_assets.demo.retail.figures import Figures
from etl_assets.demo.retail.truth import StreamTruth, Truth, write
from etl_resources.exceptions import ConfigurationError

LEAST_ROWS = 1_000
MOST_ROWS = 19_000_000  # ids have six digits


def generate(directory: Path, *, rows: int, seed: int) -> Truth:
    """See `etl_assets.demo.retail.generate`."""
    if not LEAST_ROWS <= rows <= MOST_ROWS:
        raise ConfigurationError(
            f"cannot make {rows} sales", where="rows", fix=f"ask for {LEAST_ROWS:,} to {MOST_ROWS:,} rows"
        )
    directory.mkdir(parents=True, exist_ok=True)
    truth = directory / "truth"
    for_customers, for_products, for_sales = np.random.default_rng(seed).spawn(3)
    people = customers.make(for_customers, max(500, rows // 20))
    goods = products.make(for_products, max(400, rows // 200))
    fates = {
        "customers": _write_customers(directory, truth, people),
        "products": _write_products(directory, truth, goods),
        "sales": _write_sales(directory, rows, for_sales, people, goods),
    }
    return Truth(truth, fates, _warnings(people, goods))


def _warnings(people: customers.Customers, goods: products.Products) -> dict[str, dict[str, int]]:
    kept = people.records.kept
    return {
        "customers": {
            "email_format": int((people.invalid_emails & kept).sum()),
            "phone_e164": int((people.not_e164 & kept).sum()),
        },
        "products": {"stock_not_negative": int(((goods.stock < 0) & goods.records.kept).sum())},
    }


def _write_customers(directory: Path, truth: Path, people: customers.Customers) -> dict[str, int]:
    with _replacing(directory / "customers.csv") as out:
        out.write(_header(customers.COLUMNS))
        out.write(text_bytes(people.lines))
    with StreamTruth(truth, "customers", people.silver.schema) as stream:
        stream.add(people.records, people.silver, _starts(people.lines, 2)[:-1])
    return dict(stream.counts)


def _write_products(directory: Path, truth: Path, goods: products.Products) -> dict[str, int]:
    with _replacing(directory / "products.json") as out:
        out.write(b'{"products": [\n')
        for number, document in enumerate(goods.documents()):
            out.write((",\n" if number else "").encode() + document.encode())
        summary = json.dumps({"total_products": len(goods.numbers)})
        out.write(f'\n], "metadata": {summary}}}\n'.encode())
    with StreamTruth(truth, "products", goods.silver.schema) as stream:
        stream.add(goods.records, goods.silver)
    return dict(stream.counts)


def _write_sales(
    directory: Path, rows: int, rng: np.random.Generator, people: customers.Customers, goods: products.Products
) -> dict[str, int]:
    truth = directory / "truth"
    shop, figures = _open_shop(people, goods)
    line = 2
    with _replacing(directory / "sales.csv") as out, StreamTruth(truth, "sales", sales.SILVER) as stream:
        out.write(_header(sales.COLUMNS))
        for chunk in sales.make(rng, rows, shop):
            starts = _starts(chunk.text, line)
            out.write(text_bytes(chunk.text))
            stream.add(chunk.records, chunk.silver, starts[:-1])
            figures.add(chunk.clean, chunk.records.kept)
            line = int(starts[-1])
    for name in ("revenue_by_segment_and_month", "customer_360", "product_performance"):
        write(truth, "gold", name, getattr(figures, name)())
    return dict(stream.counts)


def _open_shop(people: customers.Customers, goods: products.Products) -> tuple[sales.Shop, Figures]:
    kept_people, kept_goods = np.flatnonzero(people.records.kept), np.flatnonzero(goods.records.kept)
    shop = sales.Shop(
        customers=people.numbers[kept_people],
        absent_customers=_absent(people.numbers, people.numbers[kept_people]),
        products=goods.numbers[kept_goods],
        absent_products=_absent(goods.numbers, goods.numbers[kept_goods]),
        prices=goods.price[kept_goods],
    )
    figures = Figures(
        people.silver.take(kept_people),
        people.segment[kept_people],
        goods.silver.take(kept_goods),
        goods.category[kept_goods],
        goods.cost[kept_goods],
    )
    return shop, figures


def _absent(all_numbers: Ints, kept: Ints) -> Ints:
    """Ids that occur in the file but not in silver, and some that occur nowhere."""
    return np.append(np.setdiff1d(all_numbers, kept), all_numbers.max() + np.arange(1, 20))


def _starts(lines: pa.StringArray, first: int) -> Ints:
    """Return the physical line on which each record starts, and behind them the line after the last record."""
    heights = pc.count_substring(lines, "\n").to_numpy().astype(np.int64)
    return first + np.concatenate([[0], np.cumsum(heights)])


def _header(columns: tuple[str, ...]) -> bytes:
    return (",".join(columns) + "\n").encode()


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file aside and put it in place when it is complete."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as out:
            yield out
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
