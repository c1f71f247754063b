"""Products: one nested JSON document in which every kind of product has its own specifications."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from etl_assets.demo.retail import vocabulary as words
from etl_assets.demo.retail.columns import Ints, Text, choose, clock, deal, joined, moments, money, padded, pick
from etl_assets.demo.retail.records import BAD_VERSION, VERSION, Records, lay_out

KINDS = {
    "id blank": (0.003, "rejected:key.product_id"),
    "price negative": (0.007, "rejected:range.price"),
    "price missing": (0.002, "rejected:required.price"),
}
BUDGET_BELOW, PREMIUM_FROM = 5_000, 20_000  # cents
TIERS = ("Budget", "Mid-Range", "Premium")

_SPECIFICATIONS: dict[str, pa.DataType] = {
    "author": pa.string(),
    "publisher": pa.string(),
    "isbn": pa.string(),
    "pages": pa.int64(),
    "model": pa.string(),
    "warranty_months": pa.int64(),
    "features": pa.list_(pa.string()),
    "material": pa.string(),
    "season": pa.string(),
    "sizes_available": pa.list_(pa.string()),
    "dimensions": pa.struct([("length", pa.float64()), ("width", pa.float64()), ("unit", pa.string())]),
    "weight": pa.string(),
    "assembly_required": pa.bool_(),
}
_FIRST_UPDATE = 1_735_689_600  # 2025-01-01


@dataclass(frozen=True)
class Products:
    """The products document and its truth; every column has one entry per record, in the order of the document."""

    records: Records
    numbers: Ints
    category: Ints
    price: Ints
    """In cents."""
    cost: Ints
    """In cents; -1 where nobody knows it."""
    stock: Ints
    silver: pa.Table
    """What silver must hold of a record, if it is kept."""
    _raw: dict[str, list[Any]]

    def documents(self) -> Iterator[str]:
        """Yield each product as JSON text."""
        for values in zip(*self._raw.values(), strict=True):
            yield json.dumps(_document(dict(zip(self._raw, values, strict=True))), ensure_ascii=False)


def make(rng: np.random.Generator, rows: int) -> Products:
    """Make `rows` product records."""
    records = lay_out(rng, rows, KINDS, bad_version="rejected:range.price", versions=0.02)
    things, thing = records.things, records.thing
    newer = records.are(VERSION, BAD_VERSION)
    number = thing + 1
    spelling = rng.permutation(np.arange(things + 1) % (len(words.CATEGORY_SPELLINGS) + 1))[thing]
    category = np.array([index for _, index in words.CATEGORY_SPELLINGS] + [len(words.CATEGORIES)])[spelling]
    kind_of_thing = np.where(category == len(words.CATEGORIES), number % len(words.CATEGORIES), category)
    highest = np.where(rng.random(things) < 0.4, BUDGET_BELOW, 60_000)
    price = rng.integers(100, highest)[thing]
    price = price + 11_500 * newer
    cost = np.where(deal(rng, things, {"unknown": 0.01}, rest="known")[thing] == "known", price * 3 // 5, -1)
    stock = np.where(deal(rng, things, {"negative": 0.01}, rest="")[thing] == "negative", -5, number * 7 % 400)
    brand = _brands(rng, records, kind_of_thing)
    updated = rng.integers(_FIRST_UPDATE, _FIRST_UPDATE + 90 * 86_400, things)[thing] + 86_400 * newer
    name = joined(
        pick(words.BRANDS, number % len(words.BRANDS)),
        " ",
        pick([name for names in words.THINGS for name in names], kind_of_thing * 4 + number // 8 % 4),
    )
    spellings = [text for text, _ in words.CATEGORY_SPELLINGS] + [""]
    silver = pa.table(
        {
            "product_id": joined("P", padded(number, 6)),
            "product_name": name,
            "category": pick([*words.CATEGORIES, words.NO_CATEGORY], category),
            "brand": pc.if_else(pc.equal(brand, ""), pa.scalar(None, pa.string()), brand),
            "price": money(price),
            "price_tier": pick(TIERS, np.digitize(price, [BUDGET_BELOW, PREMIUM_FROM])),
            "cost": money(cost, known=cost >= 0),
            "stock_quantity": pa.array(stock, pa.int64()),
            "warehouse": joined("WH-00", padded(number % 5 + 1, 1)),
            "supplier_id": joined("SUP", padded(number % 20 + 1, 3)),
        }
        | _specification_columns(kind_of_thing, number)
        | {"updated_at": moments(updated)}
    )
    raw = {
        "number": number.tolist(),
        "kind": kind_of_thing.tolist(),
        "defect": records.kind.tolist(),
        "product_id": _ids(rng, records, number).to_pylist(),
        "name": name.to_pylist(),
        "category": pick(spellings, spelling).to_pylist(),
        "brand": brand.to_pylist(),
        "price": price.tolist(),
        "cost": cost.tolist(),
        "stock": stock.tolist(),
        "updated": clock(updated).to_pylist(),
    }
    return Products(records, number, category, price, cost, stock, silver, raw)


def foreign_ids(style: npt.NDArray[np.str_], number: Ints) -> Text:
    """Product ids as another system writes them: `style` is dash, long, item or plain per row."""
    styles = {
        "dash": joined("P-", padded(number, 5)),
        "long": joined("PROD", padded(number, 4)),
        "item": joined("ITEM", padded(number, 3)),
    }
    return choose(style, styles, joined("P", padded(number, 6)))


def _ids(rng: np.random.Generator, records: Records, number: Ints) -> Text:
    style = deal(rng, len(number), {"dash": 0.01, "long": 0.01, "item": 0.01}, rest="plain")
    return pc.if_else(pa.array(records.are("id blank")), "", foreign_ids(style, number))


def _brands(rng: np.random.Generator, records: Records, kind_of_thing: Ints) -> Text:
    style = deal(rng, records.things, {"missing": 0.03, "blank": 0.01}, rest="plain")[records.thing]
    style[kind_of_thing == words.CATEGORIES.index("Books")] = "missing"  # a book has an author and a publisher
    brand = pick(words.BRANDS, (records.thing + 1) % len(words.BRANDS))
    return choose(style, {"missing": pa.nulls(len(brand), pa.string()), "blank": joined("")}, brand)


def _specification_columns(kind_of_thing: Ints, number: Ints) -> dict[str, pa.Array]:
    specifications = [_specifications(int(kind), int(n)) for kind, n in zip(kind_of_thing, number, strict=True)]
    for values in specifications:
        if "weight" in values:
            values["weight"] = str(values["weight"])  # a column of numbers and a word is a column of text
    return {name: pa.array([v.get(name) for v in specifications], kind) for name, kind in _SPECIFICATIONS.items()}


def _document(raw: dict[str, Any]) -> dict[str, Any]:
    number, defect = raw["number"], raw["defect"]
    specifications: dict[str, Any] = {} if raw["brand"] is None else {"brand": raw["brand"]}
    if defect != "price missing":
        sign = -1 if defect in ("price negative", BAD_VERSION) else 1
        specifications["price"] = sign * raw["price"] / 100
    specifications |= _specifications(raw["kind"], number)
    cost = {} if raw["cost"] < 0 else {"cost": raw["cost"] / 100}
    return {
        "product_id": raw["product_id"],
        "name": raw["name"],
        "category": raw["category"],
        "specifications": specifications,
        "inventory": {"quantity": raw["stock"], "warehouse": f"WH-00{number % 5 + 1}"} | cost,
        "metadata": {"supplier_id": f"SUP{number % 20 + 1:03d}", "updated_at": raw["updated"].replace(" ", "T") + "Z"},
    }


def _specifications(kind: int, number: int) -> dict[str, Any]:
    match words.CATEGORIES[kind]:
        case "Apparel":
            return {"sizes_available": ["S", "M", "L"][: number % 3 + 1], "material": "Wool", "season": "Winter"}
        case "Books":
            return {"author": "A. Writer", "publisher": "Field Press", "isbn": f"978-0{number:09d}", "pages": 96}
        case "Electronics":
            return {"model": f"X{number % 9}", "warranty_months": 12, "features": ["Wireless", "Bluetooth"]}
        case _:
            size = {"length": 39.5, "width": number % 90 + 0.5, "unit": "inches"}
            # Some clerk wrote a word where the weight belongs; the product can be sold all the same.
            return {"dimensions": size, "weight": "heavy" if number % 50 == 0 else 7.5, "assembly_required": True}
