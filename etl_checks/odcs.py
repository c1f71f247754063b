"""Reading an Open Data Contract Standard (ODCS) file: strict YAML, then the standard's own JSON schema.

The schema is validated with jsonschema-rs: jsonschema takes 2 ms per column for it, this takes 0.01 ms.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from etl_checks.mistakes import Mistakes, Place, did_you_mean, listed
from etl_checks.rules import OPERATORS

if TYPE_CHECKING:
    from pathlib import Path

    import jsonschema_rs


def parse_yaml(text: str, file: Path) -> tuple[Any, Mistakes]:
    """Return the document and the mistakes found so far: a syntax error, or a key that comes twice.

    Dates and times stay strings, as the standard's schema wants them.
    """
    import yaml

    loader = _loader()(text)
    try:
        document = loader.get_single_data()
    except yaml.YAMLError as error:
        mistakes = Mistakes(file, text, None)
        mistakes.add((), f"not valid YAML: {' '.join(str(error).split())}")
        return None, mistakes
    finally:
        loader.dispose()
    mistakes = Mistakes(file, text, document)
    for line, problem in loader.bad_keys:
        mistakes.add((), f"the key {problem} in line {line}")
    if not isinstance(document, dict):
        mistakes.add((), "a contract is a mapping that starts with apiVersion, kind, id, version")
    return document, mistakes


@cache
def _loader() -> type[Any]:
    import yaml

    class Loader(yaml.CSafeLoader):
        def __init__(self, text: str) -> None:
            super().__init__(text)
            self.bad_keys: list[tuple[int, str]] = []

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
            seen: set[str] = set()
            for key, _ in node.value:
                if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                    self.bad_keys.append((key.start_mark.line + 1, f"{key.value!r} is no text: quote it"))
                elif key.value in seen:
                    self.bad_keys.append((key.start_mark.line + 1, f"{key.value!r} comes a second time"))
                else:
                    seen.add(key.value)
            mapping = super().construct_mapping(node, deep)
            return {str(key): value for key, value in mapping.items()}

    Loader.yaml_implicit_resolvers = {
        first: [entry for entry in entries if entry[0] != "tag:yaml.org,2002:timestamp"]
        for first, entries in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def check_schema(document: Any, mistakes: Mistakes) -> None:
    """Add what the standard's JSON schema has against the document, in words for people."""
    errors = list(_validator().iter_errors(document))
    places = [tuple(error.instance_path) for error in errors]
    for error, place in zip(errors, places, strict=True):
        for at, message in _explained(error, place, document):
            mistakes.add(at, message)
    for error, place in zip(errors, places, strict=True):
        # A key counts as unevaluated as soon as anything else in its object is wrong: then it is only an echo.
        if error.kind.name == "unevaluatedProperties" and not mistakes.touch(place):
            keys = _unexpected(error)
            if set(keys) & set(OPERATORS):
                mistakes.add((*place, "metric"), "is missing: what is it that must be so?")
                continue
            for key in keys:
                mistakes.add((*place, key), f"{key!r} does not go with the type that is given here")


@cache
def _schema() -> dict[str, Any]:
    return json.loads(files("open_data_contract_standard").joinpath("schema.json").read_text(encoding="utf-8"))


@cache
def _validator() -> jsonschema_rs.Draft201909Validator:
    import jsonschema_rs

    return jsonschema_rs.Draft201909Validator(_schema())


def _explained(error: Any, place: Place, document: Any) -> Iterator[tuple[Place, str]]:
    at, kind = list(error.schema_path), error.kind.name
    if kind in ("additionalProperties", "unevaluatedProperties"):
        known = _known_keys(_node(at[:-1]))
        for key in _unexpected(error):
            if key not in known:
                yield (*place, key), f"unknown key {key!r}{did_you_mean(key, known)}"
    elif kind in ("oneOf", "anyOf"):
        yield from _explained_choice(error, place, document)
    elif kind == "required":
        if error.kind.property == "map" and "logicalType" not in _value(document, place):
            return  # the schema takes a property without a type for a map; that the type is missing is said elsewhere
        yield place, f"{error.kind.property!r} is missing"
    elif kind == "enum":
        options = [str(option) for option in _node(at)]
        found = _value(document, place)
        yield place, f"{found!r} is not {listed(options)}{did_you_mean(found, options)}"
    else:
        yield place, error.message


def _explained_choice(error: Any, place: Place, document: Any) -> Iterator[tuple[Place, str]]:
    at = list(error.schema_path)
    if "DataQualityOperators" in at:
        yield place, _operator_mistake(_value(document, place))
    elif "to" in place[-2:] or "from" in place[-2:]:
        yield place, "a foreign key is written table.column"
    elif "RelationshipSchemaLevel" in at:
        yield place, "'from' and 'to' are both one column, or both a list of columns"
    else:
        # The alternative that complains least is the one that was meant.
        for inner in min(error.kind.context, key=len, default=[]):
            yield from _explained(inner, (*place, *inner.instance_path[len(place) :]), document)


def _unexpected(error: Any) -> list[str]:
    return list(error.kind.unexpected)


def _operator_mistake(entry: Any) -> str:
    found = [key for key in entry if key in OPERATORS]
    if not found:
        return f"an operator is missing: one of {listed(OPERATORS)}"
    if len(found) > 1:
        return f"exactly one operator, not {listed(found).replace(' or ', ' and ')}"
    wanted = "two different numbers" if found[0].endswith("Between") else "a number"
    return f"{found[0]} takes {wanted}, not {entry[found[0]]!r}"


def _node(path: list[Any]) -> Any:
    node: Any = _schema()
    for step in path:
        node = node[step]
    return node


def _known_keys(node: Any) -> set[str]:
    """Return every key that the schema node, or anything it refers to, allows in its object."""
    if isinstance(node, list):
        return set().union(*map(_known_keys, node))
    if not isinstance(node, dict):
        return set()
    keys = set(node.get("properties", ()))
    if "$ref" in node:
        keys |= _known_keys(_node(node["$ref"].removeprefix("#/").split("/")))
    return keys.union(*(_known_keys(node.get(word)) for word in ("allOf", "anyOf", "oneOf", "then", "else")))


def _value(document: Any, place: Place) -> Any:
    for step in place:
        document = document[step]
    return document
