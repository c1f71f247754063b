"""Steps on numbers: within a row (clip, round, fill by a constant), and against a whole table."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from etl_assets.transforms.parameters.base import Cleaning, Columns, OnColumns, step


@step("round", "statistics:round_", "round: {columns: [price], digits: 2}")
class Round(Cleaning):
    """Round to a number of decimals; the type stays."""

    accepts: ClassVar[Literal["text", "number", "any"]] = "number"
    columns: Columns = Field(description="Columns to work on; `column: x` for one.")
    digits: int = Field(default=0, description="Decimals to keep.", ge=0, le=18)
    half: Literal["away", "even"] = Field(default="away", description="Where 2.5 goes: away from zero, or to even.")


@step("clip", "statistics:clip", "clip: {column: discount, lower: 0, upper: 0.5}")
class Clip(Cleaning):
    """Bring numbers into an interval; the type stays."""

    accepts: ClassVar[Literal["text", "number", "any"]] = "number"
    columns: Columns = Field(description="Columns to work on; `column: x` for one.")
    lower: Decimal | None = Field(default=None, description="Smallest number.")
    upper: Decimal | None = Field(default=None, description="Largest number.")

    @field_validator("lower", "upper", mode="before")
    @classmethod
    def _as_written(cls, value: Any) -> Any:
        return str(value) if isinstance(value, float) else value  # 0.1 as written, not as the nearest binary fraction

    @model_validator(mode="after")
    def _interval(self) -> Self:
        if self.lower is None and self.upper is None:
            raise ValueError("give lower, upper or both")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"lower {self.lower} is above upper {self.upper}")
        return self


@step("fill", "statistics:fill", "fill: {column: quantity, value: 0}")
class Fill(OnColumns):
    """Put a constant where NULL is; in gold also mean, median, mode or the value before (forward)."""

    accepts: ClassVar[Literal["text", "number", "any"]] = "any"
    main: ClassVar[str | None] = None

    columns: Columns = Field(description="Columns to work on; `column: x` for one.")
    value: str | int | float | bool | None = Field(default=None, description="The constant.")
    method: Literal["mean", "median", "mode", "forward"] | None = Field(
        default=None, description="Take the value from other rows (gold)."
    )
    by: Columns | None = Field(default=None, description="Fill within groups of these columns.")
    order_by: Columns | None = Field(default=None, description="Order of rows, `x` or `x desc`; for forward.")

    def looks_at_other_rows(self) -> str:
        """Return why the result of a row depends on other rows."""
        return f"fill by {self.method} takes its value from other rows" if self.method else ""

    def function(self) -> str:
        """Return `module:function`; a constant needs another one than a statistic."""
        return self.runs + "_from_rows" if self.method else self.runs

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.value is None) == (self.method is None):
            raise ValueError("give either value or method")
        if (self.method == "forward") != (self.order_by is not None):
            raise ValueError("order_by goes with method forward, and with no other")
        if self.by and not self.method:
            raise ValueError("by goes with a method")
        return self


class _OfTable(OnColumns):
    accepts: ClassVar[Literal["text", "number", "any"]] = "number"
    columns: Columns = Field(description="Columns to work on; `column: x` for one.")
    by: Columns | None = Field(default=None, description="Work within groups of these columns.")

    def looks_at_other_rows(self) -> str:
        """Return why the result of a row depends on other rows."""
        return f"{self.step} needs a statistic of other rows"


@step("winsorise", "statistics:winsorise", "winsorise: {column: amount, lower: 0.01, upper: 0.99}")
class Winsorise(_OfTable):
    """Bring numbers outside two quantiles to the nearest value within."""

    lower: float = Field(default=0.05, ge=0, le=1, description="Lower quantile.")
    upper: float = Field(default=0.95, ge=0, le=1, description="Upper quantile.")

    @model_validator(mode="after")
    def _interval(self) -> Self:
        if self.lower > self.upper:
            raise ValueError(f"lower {self.lower} is above upper {self.upper}")
        return self


@step("min_max", "statistics:min_max", "min_max: {column: score, by: [region]}")
class MinMax(_OfTable):
    """Scale numbers to 0 to 1 (float64); all equal: 0."""


@step("z_score", "statistics:z_score", "z_score: [score]")
class ZScore(_OfTable):
    """Distance from the mean in standard deviations (float64); all equal: 0."""

    deviation: Literal["sample", "population"] = Field(default="sample", description="Which standard deviation.")
