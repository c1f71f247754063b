"""A shop's customers, products and sales: as dirty as such data are, with the truth beside them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    from etl_assets.demo.retail.truth import Truth


def generate(directory: Path, *, rows: int, seed: int) -> Truth:
    """Write `customers.csv`, `products.json` and `sales.csv` into `directory`, and the truth under `directory/truth`.

    `rows` is the number of records in `sales.csv`, every kind of dirt included (1,000 to 19,000,000); there are
    a twentieth as many customers (at least 500) and a two-hundredth as many products (at least 400). The same `rows`
    and `seed` give the same bytes. Memory holds the customers, the products and a hundred thousand sales at a time.

    Raises:
        ConfigurationError: `rows` is out of range, or the extra `demo` is not installed.
    """
    if importlib.util.find_spec("numpy") is None:
        raise ConfigurationError(
            "the generator needs numpy, which is not installed",
            where="package numpy",
            fix="pip install 'etl-platform[demo]'",
        )
    from etl_assets.demo.retail import generator

    return generator.generate(directory, rows=rows, seed=seed)


__all__ = ["generate"]
