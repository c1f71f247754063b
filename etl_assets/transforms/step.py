"""Steps as data: what a user wrote, checked; and what applying them gives back. Free of Ibis, so that it loads fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from etl_assets.transforms.parameters import STEPS, Parameters
from etl_assets.transforms.parameters.rows import Filter
from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    import ibis.expr.types as ir

Layer = Literal["silver", "gold"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a table, checked. `where` says where it was written, for messages."""

    parameters: Parameters
    layer: Layer
    where: str

    @property
    def name(self) -> str:
        """The name of the step."""
        return self.parameters.step

    @property
    def reads_tables(self) -> tuple[str, ...]:
        """The other tables that the step reads, as the user wrote them."""
        return self.parameters.reads_tables()


@dataclass(frozen=True, slots=True)
class Flag:
    """A reason why a row is not kept.

    `column` is the boolean column of the table that is true (never NULL) for the rows that the flag is about. Where
    several hit, the first in the order of `Draft.flags` is the fate of the row.
    """

    fate: Literal["filtered", "rejected"]
    rule: str
    column: str
    reason: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A table after its steps, and the flags that its rows carry (silver only)."""

    table: ir.Table
    flags: tuple[Flag, ...] = ()


def parse_steps(raw: Sequence[Any], *, layer: Layer, where: str) -> tuple[Step, ...]:
    """Check the steps of one table.

    Args:
        raw: steps as YAML gives them: `{name: parameters}`, `{name: main parameter}` or `name`.
        layer: in silver, steps that look at other rows are refused.
        where: the table and file, for messages.

    Raises:
        ConfigurationError: with every mistake of every step, not the first.
    """
    steps: list[Step] = []
    mistakes: list[str] = []
    if isinstance(raw, str | Mapping) or not isinstance(raw, Sequence):
        raise ConfigurationError("steps must be a list", where=where, fix="write one step per line, each with a dash")
    for number, item in enumerate(raw, start=1):
        try:
            parameters = _read_step(item, layer)
        except ValidationError as error:
            prefix = f"step {number} ({_name_of(item)})"
            mistakes += [
                f"{prefix}{_describe(details, STEPS[_name_of(item)])}" for details in _innermost(error.errors())
            ]
        except ValueError as error:
            mistakes.append(f"step {number}: {error}")
        else:
            steps.append(Step(parameters, layer, f"{where}, step {number} ({parameters.step})"))
    mistakes += _rules_used_twice(steps)
    if mistakes:
        raise ConfigurationError(
            "\n".join(mistakes), where=where, fix="see docs/transforms.md for steps and parameters"
        )
    return tuple(steps)


def _read_step(item: Any, layer: Layer) -> Parameters:
    if isinstance(item, str):
        item = {item: None}
    if not isinstance(item, Mapping) or len(item) != 1:
        raise ValueError(f"a step is one name with its parameters, not {item!r}")
    name, value = next(iter(item.items()))
    if name not in STEPS:
        raise ValueError(f"unknown step {name!r}{_did_you_mean(str(name), STEPS)}")
    kind = STEPS[name]
    parameters = kind.model_validate(_long_form(kind, value), context={"layer": layer})
    reason = parameters.looks_at_other_rows() if layer == "silver" else ""
    if reason:
        raise ValueError(
            f"{name} is refused in silver: {reason}, so the table would depend on how its input was cut into batches;"
            " move it to a gold table"
        )
    return parameters


def _long_form(kind: type[Parameters], value: Any) -> Any:
    """Put a bare value under the main parameter; a mapping of columns is bare too."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        bare = kind.main_is_mapping and not isinstance(value.get(kind.main), Mapping)
        return {kind.main: value} if bare else value
    if kind.main is None:
        raise ValueError(f"{kind.step} takes {{parameter: value}}, not {value!r}")
    return {kind.main: value}


def _name_of(item: Any) -> str:
    return item if isinstance(item, str) else next(iter(item))


def _rules_used_twice(steps: Iterable[Step]) -> list[str]:
    seen: set[str] = set()
    mistakes = []
    for step in steps:
        if isinstance(step.parameters, Filter):
            rule = step.parameters.rule
            if rule in seen:
                mistakes.append(f"two filters are called {rule!r}; rows are counted per rule, so names must differ")
            seen.add(rule)
    return mistakes


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"


def _innermost(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out what only follows from another mistake: a list is too short because its item is wrong."""
    places = [details["loc"] for details in errors]
    return [
        details
        for details in errors
        if details["type"] != "too_short" or not any(p[: len(details["loc"])] == details["loc"] != p for p in places)
    ]


def _describe(details: ErrorDetails, kind: type[Parameters]) -> str:
    path = [str(part) for part in details["loc"] if not str(part).startswith(("function-", "tuple[", "dict["))]
    place = "." + ".".join(path) if path else ""
    if details["type"] == "extra_forbidden":
        return f": unknown key {path[-1]!r}{_did_you_mean(path[-1], _keys_at(kind, path[:-1]))}"
    if details["type"] == "missing":
        return f": {path[-1]} is missing"
    return f"{place}: {details['msg'].removeprefix('Value error, ')}"


def _keys_at(kind: type[BaseModel], path: list[str]) -> list[str]:
    """Return the keys allowed at a place within the parameters."""
    from etl_assets.transforms.parameters.rows import Condition
    from etl_assets.transforms.parameters.tables import Aggregate, GroupBy, Pivot, Window, WindowFunction

    nested: dict[type[BaseModel], type[BaseModel]] = {
        Filter: Condition, GroupBy: Aggregate, Pivot: Aggregate, Window: WindowFunction
    }  # fmt: skip
    model = nested.get(kind, kind) if path else kind
    return [field.alias or name for name, field in model.model_fields.items()]
