"""What every figure in gold must be, added up in whole cents while the sales are made."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from etl_assets.demo.retail import vocabulary as words
from etl_assets.demo.retail.columns import Flags, Ints, days, money, pick
from etl_assets.demo.retail.sales import STATUSES, Lines

VALUE_TIERS = ("None", "Bronze", "Silver", "Gold", "Platinum")
VALUE_FROM = (1, 250_000, 1_000_000, 2_500_000)
"""Net revenue in cents from which a customer is in the second, third ... tier."""

_FIRST_MONTH = np.datetime64("2024-12", "M")
_MONTHS = 7
_DAY = 86_400


@dataclass
class Tally:
    """Counts and cents per group, in arrays of the given shape."""

    shape: tuple[int, ...]
    orders: Ints = field(init=False)
    returns: Ints = field(init=False)
    units_sold: Ints = field(init=False)
    units_returned: Ints = field(init=False)
    gross: Ints = field(init=False)
    returned: Ints = field(init=False)

    def __post_init__(self) -> None:
        for name in ("orders", "returns", "units_sold", "units_returned", "gross", "returned"):
            setattr(self, name, np.zeros(self.shape, np.int64))

    def add(self, group: tuple[Ints, ...], lines: Lines, sold: Flags, back: Flags) -> None:
        """Add lines; `sold` and `back` tell which are sales and which are returns."""
        here, there = tuple(part[sold] for part in group), tuple(part[back] for part in group)
        np.add.at(self.orders, here, 1)
        np.add.at(self.units_sold, here, lines.quantity[sold])
        np.add.at(self.gross, here, lines.total[sold])
        np.add.at(self.returns, there, 1)
        np.add.at(self.units_returned, there, -lines.quantity[back])
        np.add.at(self.returned, there, -lines.total[back])

    @property
    def net(self) -> Ints:
        """Gross revenue less returns, in cents."""
        return self.gross - self.returned

    def columns(self, chosen: Flags | slice = slice(None)) -> dict[str, pa.Array]:
        """Return the counts and amounts as columns of a gold table."""
        counts = {name: pa.array(getattr(self, name)[chosen]) for name in ("orders", "returns")}
        units = {name: pa.array(getattr(self, name)[chosen]) for name in ("units_sold", "units_returned")}
        amounts = {"gross_revenue": self.gross, "returned_amount": self.returned, "net_revenue": self.net}
        return counts | units | {name: money(cents[chosen], digits=18) for name, cents in amounts.items()}


class Figures:
    """Adds up kept sales; customers and products are the rows of their silver tables, in the same order."""

    def __init__(self, customers: pa.Table, segment: Ints, products: pa.Table, category: Ints, cost: Ints) -> None:
        self._customers, self._segment = customers, segment
        self._products, self._category, self._cost = products, category, cost
        self._months = Tally((len(words.SEGMENTS), _MONTHS))
        self._per_customer = Tally((len(segment),))
        self._per_product = Tally((len(category),))
        self._favourites = np.zeros((len(segment), len(words.CATEGORIES) + 1), np.int64)
        self._first = np.full(len(segment), np.iinfo(np.int64).max)
        self._last = np.full(len(segment), -1)

    def add(self, lines: Lines, kept: Flags) -> None:
        """Add the lines that are `kept`."""
        sold = kept & (lines.status == STATUSES.index("completed"))
        back = kept & (lines.status == STATUSES.index("returned"))
        month = (lines.sold_at.astype("datetime64[s]").astype("datetime64[M]") - _FIRST_MONTH).astype(np.int64)
        self._months.add((self._segment[lines.customer], month), lines, sold, back)
        self._per_customer.add((lines.customer,), lines, sold, back)
        self._per_product.add((lines.product,), lines, sold, back)
        who = lines.customer[sold]
        np.add.at(self._favourites, (who, self._category[lines.product[sold]]), lines.total[sold])
        np.minimum.at(self._first, who, lines.sold_at[sold])
        np.maximum.at(self._last, who, lines.sold_at[sold])

    def revenue_by_segment_and_month(self) -> pa.Table:
        """Return one row per segment and month in which something was sold or came back."""
        tally = self._months
        present = (tally.orders + tally.returns) > 0
        segment, month = np.nonzero(present)
        first_days = (_FIRST_MONTH + month).astype("datetime64[D]").astype(np.int64)
        return pa.table({"segment": pick(words.SEGMENTS, segment), "month": days(first_days)} | tally.columns(present))

    def customer_360(self) -> pa.Table:
        """Return one row per customer, those that never bought anything included."""
        tally = self._per_customer
        bought = tally.orders > 0
        favourite = np.where(bought, self._favourites.argmax(axis=1), len(words.CATEGORIES) + 1)
        tier = np.digitize(tally.net, VALUE_FROM)
        return pa.table(
            {name: self._customers[name] for name in ("customer_id", "segment", "country_code", "registered_on")}
            | tally.columns()
            | {
                "first_order_on": days(self._first // _DAY, known=bought),
                "last_order_on": days(self._last // _DAY, known=bought),
                "favourite_category": pick([*words.CATEGORIES, words.NO_CATEGORY, None], favourite),
                "value_tier": pick(VALUE_TIERS, tier),
            }
        )

    def product_performance(self) -> pa.Table:
        """Return one row per product, with its margin and its rank by net revenue within its category."""
        tally = self._per_product
        net_units = tally.units_sold - tally.units_returned
        margin = tally.net - net_units * self._cost
        named = {
            name: self._products[name] for name in ("product_id", "product_name", "category", "brand", "price_tier")
        }
        ranks = {"rank_in_category": pa.array(_rank_within(self._category, tally.net))}
        return pa.table(named | tally.columns() | {"margin": money(margin, known=self._cost >= 0, digits=18)} | ranks)


def _rank_within(group: Ints, value: Ints) -> Ints:
    """Rank from 1 per group, the highest value first; equal values share the better rank."""
    order = np.lexsort((-value, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    position = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    new = np.diff(value[order], prepend=0) != 0
    new[starts] = True
    rank = np.empty(len(order), np.int64)
    rank[order] = position[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))] + 1
    return rank
