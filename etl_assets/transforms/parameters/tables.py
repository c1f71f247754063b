"""Steps for gold: they look at many rows or at other tables."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from etl_assets.transforms.parameters.base import Column, Columns, TableStep, step
from etl_assets.transforms.parameters.rows import Scalar, Sql, mapping_or_name, one_key

AGGREGATES = ("sum", "mean", "min", "max", "count", "median", "stddev", "variance", "count_distinct", "quantile")
WINDOW_FUNCTIONS = ("row_number", "rank", "dense_rank", "lag", "lead", "cumulative_sum", "moving_average")
_WITHOUT_COLUMN = ("count", "row_number", "rank", "dense_rank")


def _pairs(value: Any) -> Any:
    names = (value,) if isinstance(value, str) else value
    return {name: name for name in names} if isinstance(names, list | tuple) else names


Pairs = Annotated[dict[Column, Column], BeforeValidator(_pairs), Field(min_length=1)]
"""Columns of the left table -> columns of the right; `[a]` is `{a: a}`."""


class _Call(BaseModel):
    """`{function: column, option: …}`, read into function, column and options."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    known: ClassVar[tuple[str, ...]]

    function: str
    column: Column | None = None

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        function = one_key(value, "function", cls.known)
        rest = {key: item for key, item in value.items() if key != function}
        clash = {"function", "column"} & rest.keys()
        if clash:
            raise ValueError(f"write {{{function}: column}} instead of {min(clash)!r}")
        return {"function": function, "column": value[function], **rest}

    @model_validator(mode="after")
    def _column_where_due(self) -> Self:
        if self.column is None and self.function not in _WITHOUT_COLUMN:
            raise ValueError(f"{self.function} of which column? Write {{{self.function}: column}}")
        if self.column is not None and self.function in _WITHOUT_COLUMN[1:]:
            raise ValueError(f"{self.function} takes no column")
        return self


class Aggregate(_Call):
    """`{sum: amount}`, `{quantile: amount, at: 0.95}`, `count` (rows) or `{count: column}` (values)."""

    known: ClassVar[tuple[str, ...]] = AGGREGATES
    at: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _at_where_due(self) -> Self:
        if (self.at is None) == (self.function == "quantile"):
            raise ValueError("at goes with quantile, and with no other")
        return self


class WindowFunction(_Call):
    """`row_number`, `{lag: amount, offset: 1}`, `{moving_average: amount, rows: 7}`."""

    known: ClassVar[tuple[str, ...]] = WINDOW_FUNCTIONS
    offset: int | None = Field(default=None, ge=1)
    rows: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _options_where_due(self) -> Self:
        if self.offset is not None and self.function not in ("lag", "lead"):
            raise ValueError("offset goes with lag and lead")
        if (self.rows is not None) != (self.function == "moving_average"):
            raise ValueError("rows goes with moving_average, and with no other")
        return self


@step(
    "group_by",
    "aggregates:group_by",
    "group_by: {by: [segment], aggregates: {revenue: {sum: amount}, orders: count}}",
)
class GroupBy(TableStep):
    """One row per group. NULL is a group of its own; aggregates leave NULL out."""

    by: Annotated[tuple[Column, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)] = Field(
        default=(), description="Columns of the group; left out: one row for the table."
    )
    aggregates: dict[Column, Annotated[Aggregate, BeforeValidator(mapping_or_name)]] = Field(
        description=f"Column -> {{function: column}}, of {', '.join(AGGREGATES)} (with `at`).", min_length=1
    )


@step(
    "window",
    "windows:window",
    "window: {partition_by: [customer_id], order_by: [day], columns: {total: {cumulative_sum: amount}}}",
)
class Window(TableStep):
    """Add columns that look along the rows of a partition, in an order; NULL comes last."""

    partition_by: Columns | None = Field(default=None, description="Columns of the partition; left out: one.")
    order_by: Columns = Field(description="Order, `x` or `x desc`.")
    columns: dict[Column, Annotated[WindowFunction, BeforeValidator(mapping_or_name)]] = Field(
        description=f"Column -> {{function: column}}, of {', '.join(WINDOW_FUNCTIONS)} (`offset`, `rows`).",
        min_length=1,
    )


@step("join", "joins:join", "join: {with: silver/customers, by: [customer_id], how: left}")
class Join(TableStep):
    """Join another table; columns of the same name get a suffix."""

    table: str = Field(alias="with", description="The other table.", min_length=1)
    # not `on`: YAML reads that as a boolean
    by: Pairs | None = Field(default=None, description="Equal columns, or left -> right.")
    where: Sql | None = Field(default=None, description="SQL condition over `left.x` and `right.y`, instead of `by`.")
    how: Literal["inner", "left", "right", "full"] = Field(default="inner", description="Which rows stay unmatched.")
    suffix: str = Field(
        default="_right", description="For columns of the other table whose name is taken.", min_length=1
    )

    def reads_tables(self) -> tuple[str, ...]:
        """Return the other table."""
        return (self.table,)

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if (self.by is None) == (self.where is None):
            raise ValueError("give either by or where")
        return self


@step(
    "pivot",
    "pivots:pivot",
    "pivot: {rows: [region], column: month, values: [jan, feb], aggregate: {sum: amount}}",
)
class Pivot(TableStep):
    """Make the values of a column columns of their own."""

    rows: Columns = Field(description="One row per group of these columns.")
    column: Column = Field(description="The column whose values become columns.")
    values: tuple[Scalar, ...] = Field(description="The values, declared: they are columns of the table.", min_length=1)
    aggregate: Annotated[Aggregate, BeforeValidator(mapping_or_name)] = Field(description="What stands in the cells.")
    prefix: str = Field(default="", description="Before the value, in the name of its column.")
    others: Column | None = Field(default=None, description="Column for all values that are not declared.")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = (
            [f"{self.prefix}{value}" for value in self.values] + ([self.others] if self.others else []) + [*self.rows]
        )
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise ValueError(f"two columns would be called {twice[0]!r}")
        if any(name.startswith("_") for name in names):
            raise ValueError("a column would start with _: give a prefix")
        return self


@step("unpivot", "pivots:unpivot", "unpivot: {columns: [jan, feb], names_to: month, values_to: amount}")
class Unpivot(TableStep):
    """Make columns rows: one row per column, with its name and its value."""

    columns: Columns = Field(description="Columns of one type.")
    names_to: Column = Field(default="name", description="New column: the name.")
    values_to: Column = Field(default="value", description="New column: the value.")


@step("correlation", "correlation:correlation", "correlation: {columns: [price, quantity, discount]}")
class Correlation(TableStep):
    """Pearson's correlation of every pair of columns: column_a, column_b, correlation, rows (where both are there)."""

    main: ClassVar[str | None] = "columns"
    columns: Columns = Field(description="Two or more columns of numbers.", min_length=2)
    by: Columns | None = Field(default=None, description="Correlate within groups of these columns.")
