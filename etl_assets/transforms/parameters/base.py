"""The registry of steps, and the kinds of step there are: a kind is a signature of the function that runs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

STEPS: dict[str, type[Parameters]] = {}
"""Name of a step -> its parameters; filled by `@step`."""

P = TypeVar("P", bound="type[Parameters]")


class Parameters(BaseModel):
    """The parameters of one step. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: ClassVar[str]
    runs: ClassVar[str]
    example: ClassVar[str]
    """The step as one would write it, one line of YAML."""
    main: ClassVar[str | None] = None
    """The parameter that a bare value stands for: `- trim: [a]` is `- trim: {columns: [a]}`."""
    main_is_mapping: ClassVar[bool] = False

    def looks_at_other_rows(self) -> str:
        """Return why the result of a row depends on other rows, or "" when it does not."""
        return ""

    def function(self) -> str:
        """Return `module:function` of the pure Ibis function behind the step."""
        return self.runs

    def reads_tables(self) -> tuple[str, ...]:
        """Return the names of the other tables that the step reads, as the user wrote them."""
        return ()


def step(name: str, runs: str, example: str) -> Callable[[P], P]:
    """Register the parameters under the name of their step."""

    def register(parameters: P) -> P:
        parameters.step, parameters.runs, parameters.example = name, f"etl_assets.transforms.{runs}", example
        STEPS[name] = parameters
        return parameters

    return register


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _user_column(name: str) -> str:
    if not name:
        raise ValueError("the name of a column is empty")
    if name.startswith("_"):
        raise ValueError(f"{name!r}: columns that start with _ tell where a row comes from and stay as they are")
    return name


Column = Annotated[str, AfterValidator(_user_column)]
Columns = Annotated[tuple[Column, ...], BeforeValidator(_one_or_many), Field(min_length=1)]
RuleName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")]


def _null_is_a_word(value: Any) -> Any:
    return "null" if value is None else value


OnErrorOfText = Annotated[Literal["reject", "null", "keep"], BeforeValidator(_null_is_a_word)]
OnError = Annotated[Literal["reject", "null"], BeforeValidator(_null_is_a_word)]

ON_ERROR = "reject: the row goes to etl_errors (in gold: the run stops); null: the value is lost."
ON_ERROR_OF_TEXT = f"{ON_ERROR[:-1]}; keep: the text stays as it came."

_TYPES = (
    "boolean", "int8", "int16", "int32", "int64", "float32", "float64", "string", "binary", "date", "time",
    "timestamp", "timestamptz", "uuid",
)  # fmt: skip
_MOST_DIGITS = 38


def _known_type(name: str) -> str:
    from difflib import get_close_matches

    decimal = re.fullmatch(r"decimal\((\d+), ?(\d+)\)", name)
    if decimal:
        precision, scale = int(decimal[1]), int(decimal[2])
        if not 1 <= precision <= _MOST_DIGITS or scale > precision:
            raise ValueError(
                f"{name}: a decimal has 1 to {_MOST_DIGITS} digits, and no more behind the sign than in all"
            )
        return f"decimal({precision}, {scale})"
    if name not in _TYPES:
        near = get_close_matches(name, _TYPES, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(_TYPES)}, decimal(p,s)"
        raise ValueError(f"unknown type {name!r}{hint}")
    return name


TypeName = Annotated[str, AfterValidator(_known_type)]


class OnColumns(Parameters):
    """A step that rewrites each of some columns by itself."""

    main: ClassVar[str | None] = "columns"
    accepts: ClassVar[Literal["text", "number", "any"]] = "text"

    columns: Columns | None = Field(default=None, description="Columns to work on; left out: all text columns.")

    @model_validator(mode="before")
    @classmethod
    def _column_is_columns(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "column" in value and "columns" not in value:
            return {("columns" if key == "column" else key): item for key, item in value.items()}
        return value


class Cleaning(OnColumns):
    """Runs `function(value, parameters) -> value` per column; what it returns for what it returned is the same."""


class Conversion(OnColumns):
    """Runs `function(value, parameters) -> value or NULL` per column; NULL for a value that is there is a failure."""

    columns: Columns = Field(description="Columns to work on; `column: x` for one.")
    on_error: OnErrorOfText = Field(default="reject", description=ON_ERROR_OF_TEXT)

    def reason(self) -> str:
        """Return what is wrong with a value that does not convert."""
        raise NotImplementedError


class RowStep(Parameters):
    """Runs `function(projection, parameters)`: adds, drops or flags, looking at one row only."""


class TableStep(Parameters):
    """Runs `function(table, parameters, tables) -> table`: looks at other rows, so it is for gold."""

    def looks_at_other_rows(self) -> str:
        """Return why the result of a row depends on other rows."""
        return f"{self.step} looks at other rows"
