"""From pydantic's errors to one line each, with the nearest known key; and all mistakes of all pipelines at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from etl_resources.exceptions import ConfigurationError, EtlError

Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")
_collected: ContextVar[list[str] | None] = ContextVar("_collected", default=None)
_uses: ContextVar[list[Use] | None] = ContextVar("_uses", default=None)


@dataclass(frozen=True)
class Use:
    """A connection that a stream or a publication names: `resource` is its key, `kind` the class it has to be of."""

    connection: str
    resource: str
    kind: type[Any]
    where: str


def validated(model: type[Model], data: Mapping[str, Any], *, where: str) -> Model:
    """Return `data` as a model.

    Raises:
        ConfigurationError: with one line per mistake.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_line(model, detail) for detail in error.errors(include_url=False, include_input=False)]
        raise ConfigurationError("\n".join(dict.fromkeys(lines)), where=where, fix="see docs/pipelines.md") from None


def did_you_mean(word: str, known: Any) -> str:
    """Return ` - did you mean 'x'?`, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" - did you mean {near[0]!r}?" if near else ""


def _line(model: type[BaseModel], detail: Any) -> str:
    path = [str(part) for part in detail["loc"]]
    place = ".".join(path)
    if detail["type"] == "extra_forbidden":
        known = _keys(model, path[:-1])
        return f"{place}: unknown key{did_you_mean(path[-1], known)} (known: {', '.join(known)})"
    if detail["type"] == "missing":
        return f"{place}: is missing"
    return f"{place or model.__name__}: {detail['msg'].removeprefix('Value error, ')}"


def _keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the keys that are known at a place inside the model."""
    current: Any = model
    inside = False  # of a mapping or a list: the next part is a key or an index, and the model has been found already
    for part in path:
        if inside:
            inside = False
        elif isinstance(current, type) and issubclass(current, BaseModel):
            names = {field.alias or name: field.annotation for name, field in current.model_fields.items()}
            annotation = names.get(part)
            current, inside = _inner(annotation), _holds_many(annotation)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return [field.alias or name for name, field in current.model_fields.items()]
    return []


def _holds_many(annotation: Any) -> bool:
    return get_origin(annotation) in (dict, list) or any(_holds_many(part) for part in get_args(annotation))


def _inner(annotation: Any) -> Any:
    """Return the model inside `Model | None`, `list[Model]` or `dict[str, Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inner(part)) is not None), None)


@contextmanager
def collecting() -> Iterator[tuple[list[str], list[Use]]]:
    """Collect the mistakes of everything that loads inside, instead of stopping at the first; and the connections."""
    found: list[str] = []
    uses: list[Use] = []
    token, token_of_uses = _collected.set(found), _uses.set(uses)
    try:
        yield found, uses
    finally:
        _collected.reset(token)
        _uses.reset(token_of_uses)


def use(connection: str, resource: str, kind: type[Any], where: str) -> None:
    """Remember that a connection is needed; whether it is there is known when everything is loaded."""
    collected = _uses.get()
    if collected is not None:
        collected.append(Use(connection, resource, kind, where))


def wrong_uses(uses: Iterable[Use], resources: Mapping[str, Any]) -> list[str]:
    """Return a line per connection that is not there, or is one to another system."""
    lines = []
    for each in uses:
        found = resources.get(each.resource)
        if isinstance(found, each.kind):
            continue
        wanted = each.kind.__module__.rpartition(".")[2]
        if found is not None:
            has = type(found).__module__.rpartition(".")[2]
            lines.append(f"{each.where}: the connection {each.connection!r} is of type {has}, not {wanted}")
        else:
            known = [name for name, resource in resources.items() if isinstance(resource, each.kind)]
            suffix = each.resource.removeprefix(each.connection)
            names = [name.removesuffix(suffix) for name in known]
            hint = did_you_mean(each.connection, names) or f" (known: {', '.join(names) or 'none'})"
            lines.append(f"{each.where}: there is no connection {each.connection!r} of type {wanted}{hint}")
    return lines


def reported(build: Callable[[], Result], otherwise: Result) -> Result:
    """Return what `build` returns; keep its mistake for the end and return `otherwise` if someone collects."""
    try:
        return build()
    except EtlError as error:
        found = _collected.get()
        if found is None:
            raise
        found.append(str(error))
        return otherwise
