"""Conditions, and the steps that keep or leave out rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationInfo,
    model_validator,
)

from etl_assets.transforms.parameters.base import Columns, RowStep, RuleName, TableStep, step


def _checked_sql(text: str, info: ValidationInfo) -> str:
    from etl_assets.transforms.scalar_sql import parse_scalar

    layer = (info.context or {}).get("layer", "gold")
    parse_scalar(text, repeatable=layer == "silver")
    return text


Sql = Annotated[str, AfterValidator(_checked_sql)]
"""One scalar SQL expression in DuckDB's dialect, over the columns of the row."""

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr


def _sql_or_mapping(value: Any) -> Any:
    return {"sql": value} if isinstance(value, str) else value


class Condition(BaseModel):
    """One comparison of a column, an SQL expression, or and / or / not of conditions. Exactly one of these."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sql: Sql | None = None
    all: tuple[AnyCondition, ...] | None = Field(default=None, alias="and", min_length=1)
    any: tuple[AnyCondition, ...] | None = Field(default=None, alias="or", min_length=1)
    negated: AnyCondition | None = Field(default=None, alias="not")
    column: str | None = None
    equals: Scalar | None = None
    not_equals: Scalar | None = None
    one_of: tuple[Scalar, ...] | None = Field(default=None, alias="in", min_length=1)
    none_of: tuple[Scalar, ...] | None = Field(default=None, alias="not_in", min_length=1)
    above: Scalar | None = None
    at_least: Scalar | None = None
    below: Scalar | None = None
    at_most: Scalar | None = None
    between: tuple[Scalar, Scalar] | None = None
    is_null: StrictBool | None = None
    matches: str | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    contains: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        shapes = {"sql", "all", "any", "negated", "column"} & self.model_fields_set
        if len(shapes) != 1:
            raise ValueError("give exactly one of: an SQL expression, and, or, not, column")
        if len(self.comparisons()) != (1 if self.column is not None else 0):
            raise ValueError(f"give column and exactly one comparison ({', '.join(COMPARISONS)})")
        return self

    def comparisons(self) -> tuple[str, ...]:
        """Return the names of the fields that compare."""
        return tuple(
            name for name in type(self).model_fields if name in self.model_fields_set and name not in _NOT_COMPARISONS
        )


_NOT_COMPARISONS = ("sql", "all", "any", "negated", "column")
AnyCondition = Annotated[Condition, BeforeValidator(_sql_or_mapping)]
Condition.model_rebuild()
COMPARISONS = tuple(
    field.alias or name for name, field in Condition.model_fields.items() if name not in _NOT_COMPARISONS
)


@step("filter", "filters:filter_", "filter: {rule: not_a_test, where: \"status <> 'test'\"}")
class Filter(RowStep):
    """Keep the rows for which a condition is true; NULL is not true. In silver the others count as filtered:<rule>."""

    rule: RuleName = Field(description="Name under which rows that go are counted.")
    where: AnyCondition = Field(
        description=f"SQL expression, or and / or / not of {{column, comparison}}: {', '.join(COMPARISONS)}."
    )


@step("deduplicate", "filters:deduplicate", 'deduplicate: {key: [email], order_by: ["updated_at desc"]}')
class Deduplicate(TableStep):
    """Keep the first row of each key in an order; ties are broken by the other columns, so the result is fixed."""

    main: ClassVar[str | None] = "key"

    key: Columns = Field(description="Columns that identify a row.")
    order_by: Columns | None = Field(default=None, description="Order, `x` or `x desc`; NULL comes last.")


def mapping_or_name(value: Any) -> Any:
    """Let a bare word stand for a mapping without arguments: `count` is `{count: null}`."""
    return {value: None} if isinstance(value, str) else value


def one_key(value: Mapping[str, Any], kind: str, known: tuple[str, ...]) -> str:
    """Return the one key of `value` that is in `known`."""
    found = [key for key in value if key in known]
    if len(found) != 1:
        from difflib import get_close_matches

        near = [match for key in value for match in get_close_matches(str(key), known, n=1)]
        hint = f"; did you mean {near[0]!r}?" if near and not found else f" ({', '.join(known)})"
        raise ValueError(f"give exactly one {kind}{hint}")
    return found[0]
