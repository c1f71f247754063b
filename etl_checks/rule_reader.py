"""Turns what a contract says about columns and tables into rules. How each is spelled: docs/contracts.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from etl_checks import formats
from etl_checks.columns import text_limit, typed_value
from etl_checks.mistakes import Mistakes, Place, did_you_mean, listed
from etl_checks.quality_reader import read_quality
from etl_checks.rule_builder import RuleBuilder
from etl_checks.rules import Kind

_LIMITS = {
    "minimum": "minimum",
    "maximum": "maximum",
    "exclusiveMinimum": "exclusive_minimum",
    "exclusiveMaximum": "exclusive_maximum",
}
_LENGTHS = {"minLength": "minimum", "maxLength": "maximum", "minItems": "minimum", "maxItems": "maximum"}
_NOT_CHECKED = {
    "multipleOf": "write a rule of type sql such as `amount % 5 = 0`",
    "uniqueItems": "write a rule of type sql such as `len(list_distinct(tags)) = len(tags)`",
    "minProperties": "write a rule of type sql",
    "maxProperties": "write a rule of type sql",
    "required": "write a rule of type sql such as `address.city IS NOT NULL`",
    "defaultTimezone": "times without a zone are UTC here",
}
_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
    **dict.fromkeys(("w", "week", "weeks"), 604800),
}
_REFERENCE = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*(?:\.[A-Za-z_][A-Za-z0-9_\-]*)+")


def read_property(element: dict[str, Any], place: Place, builder: RuleBuilder, *, sole_key: bool) -> None:
    """Add the rules of one column; `sole_key`: it is the whole primary key, so it is unique as well."""
    name = str(element.get("name"))
    column = builder.columns.get(name)
    builder.check_custom(element, place)
    if element.get("required") or element.get("primaryKey"):
        builder.add("required", (name,), (*place, "required"), element, own=False)
    if element.get("unique") or sole_key:
        builder.add("unique", (name,), (*place, "unique"), element, own=False)
    if column is not None:
        for kind, params, at in _from_options(element, place, builder):
            builder.add(kind, (name,), at, element, params=params, own=False)
        _read_enum(element, place, builder)
    _read_relationships(element, place, builder)
    for index, entry in _entries(element, "quality"):
        read_quality(entry, (*place, "quality", index), builder, name)


def read_table(element: dict[str, Any], place: Place, builder: RuleBuilder, key: tuple[str, ...]) -> None:
    """Add the rules of the table: composite key, composite foreign keys, quality."""
    builder.check_custom(element, place)
    if len(key) > 1:
        builder.add("unique", key, place, {})
    for index, entry in _entries(element, "relationships"):
        at = (*place, "relationships", index)
        if builder.mistakes.touch(at):
            continue
        sides = [[end] if isinstance(end, str) else end for end in (entry["from"], entry["to"])]
        own = [_reference(end, (*at, "from"), builder.mistakes) for end in sides[0]]
        _add_foreign_key(tuple(column for _, column in own if column), sides[1], at, builder, entry)
    for index, entry in _entries(element, "quality"):
        read_quality(entry, (*place, "quality", index), builder, None)


def read_freshness(document: dict[str, Any], table: str, builder: RuleBuilder) -> None:
    """Add the freshness rule of `slaProperties`; what else is promised there is not about the rows."""
    if not builder.columns:
        return  # nothing to refer to, which has been reported
    for index, entry in _entries(document, "slaProperties"):
        place: Place = ("slaProperties", index)
        word = entry.get("property")
        if word != "freshness":
            if str(word).lower() == "freshness" or did_you_mean(word, ("freshness",)):
                builder.mistakes.add((*place, "property"), f"{word!r}; did you mean 'freshness'?")
            continue
        builder.check_custom(entry, place)
        value, unit = entry.get("value"), entry.get("unit")
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            builder.mistakes.add((*place, "value"), f"is a number above 0, not {value!r}")
            continue
        if unit not in _SECONDS:
            builder.mistakes.add((*place, "unit"), f"{unit!r} is not s, min, h, d or w")
            continue
        prefix, _, name = str(entry.get("element", "")).rpartition(".")
        column = builder.columns.get(name)
        if column is None or prefix not in ("", table):
            hint = did_you_mean(name, builder.columns)
            builder.mistakes.add((*place, "element"), f"{entry.get('element')!r} is no column of {table}{hint}")
        elif column.logical_type not in ("date", "timestamp"):
            builder.mistakes.add((*place, "element"), f"{name!r} is a {column.logical_type}, not a date or timestamp")
        else:
            params = {"seconds": float(value) * _SECONDS[unit]}
            builder.add("freshness", (name,), place, entry, params=params)


def _entries(element: dict[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = element.get(key)
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict):
            yield index, entry


def _from_options(
    element: dict[str, Any], place: Place, builder: RuleBuilder
) -> Iterator[tuple[Kind, dict[str, Any], Place]]:
    """Yield kind, parameters and place of the rules in `logicalTypeOptions`."""
    at = (*place, "logicalTypeOptions")
    options = _sound_options(element, at, builder.mistakes)
    column = builder.columns[element["name"]]
    limits = {ours: options[key] for key, ours in _LIMITS.items() if key in options}
    if limits and _limits_make_sense(limits, column.logical_type, at, builder.mistakes):
        yield "range", {**limits, "type": column.duckdb_type}, at
    lengths = {ours: options[key] for key, ours in _LENGTHS.items() if key in options}
    if lengths:
        if lengths.get("minimum", 0) > lengths.get("maximum", float("inf")):
            builder.mistakes.add(at, "the smallest length is above the greatest")
        yield "length", lengths, at
    if "pattern" in options:
        yield "pattern", {"pattern": options["pattern"]}, (*at, "pattern")
    if "format" in options and _format_known(options["format"], column.logical_type, (*at, "format"), builder.mistakes):
        yield "format", {"format": options["format"]}, (*at, "format")


def _sound_options(element: dict[str, Any], place: Place, mistakes: Mistakes) -> dict[str, Any]:
    given = element.get("logicalTypeOptions")
    options = dict(given) if isinstance(given, dict) and not mistakes.touch(place) else {}
    for key in options.keys() & _NOT_CHECKED.keys():
        if options[key] is not False:
            mistakes.add((*place, key), f"is not checked: {_NOT_CHECKED[key]}")
    if (limit := text_limit(element)) is not None:
        options.setdefault("maxLength", limit)
    return options


def _format_known(name: Any, kind: str, place: Place, mistakes: Mistakes) -> bool:
    if kind in ("date", "timestamp"):
        mistakes.add(place, f"a typed {kind} has no format: give it to the step that parses it")
    elif kind == "string" and name not in formats.NAMES:
        hint = did_you_mean(name, formats.NAMES) or f"; known are {listed(formats.NAMES)}"
        mistakes.add(place, f"unknown format {name!r}{hint}")
    return kind == "string" and name in formats.NAMES


def _limits_make_sense(limits: dict[str, Any], kind: str, place: Place, mistakes: Mistakes) -> bool:
    back = {ours: theirs for theirs, ours in _LIMITS.items()}
    wrong = [key for key, value in limits.items() if not typed_value(value, "number" if kind == "integer" else kind)]
    for key in wrong:
        mistakes.add((*place, back[key]), f"{limits[key]!r} is no {kind}")
    if wrong:
        return False
    low = [limits[key] for key in ("minimum", "exclusive_minimum") if key in limits]
    high = [limits[key] for key in ("maximum", "exclusive_maximum") if key in limits]
    if len(low) > 1 or len(high) > 1:
        mistakes.add(place, "either minimum or exclusiveMinimum, either maximum or exclusiveMaximum")
    elif low and high and (low[0] > high[0] or (low[0] == high[0] and any("exclusive" in key for key in limits))):
        mistakes.add(place, "no value can be in this range")
    return True


def _read_enum(element: dict[str, Any], place: Place, builder: RuleBuilder) -> None:
    values = [entry.get("value") for _, entry in _entries(element, "enum")]
    if values:
        builder.add_allowed(values, element["name"], (*place, "enum"), element, own=False)


def _read_relationships(element: dict[str, Any], place: Place, builder: RuleBuilder) -> None:
    for index, entry in _entries(element, "relationships"):
        at = (*place, "relationships", index)
        if builder.mistakes.touch(at):
            continue
        if isinstance(entry["to"], list):
            builder.mistakes.add(
                (*at, "to"), "one column refers to one column; composite keys are written at the table"
            )
            continue
        merged = {"customProperties": element.get("customProperties"), **entry}
        _add_foreign_key((str(element.get("name")),), [entry["to"]], at, builder, merged)


def _add_foreign_key(
    columns: tuple[str, ...], targets: list[str], place: Place, builder: RuleBuilder, settings: dict[str, Any]
) -> None:
    builder.check_custom(settings, place)
    found = [_reference(target, (*place, "to"), builder.mistakes) for target in targets]
    tables = {table for table, _ in found}
    unknown = [column for column in columns if column not in builder.columns]
    for column in unknown:
        builder.mistakes.add((*place, "from"), f"there is no column {column!r}{did_you_mean(column, builder.columns)}")
    if len(tables) > 1 or len(found) != len(columns):
        builder.mistakes.add(place, "'from' and 'to' name as many columns, all of 'to' in one table")
    elif not unknown and not builder.mistakes.touch(place):
        params = {"table": tables.pop(), "columns": tuple(column for _, column in found)}
        builder.add("foreign_key", columns, place, settings, params=params)


def _reference(text: str, place: Place, mistakes: Mistakes) -> tuple[str, str]:
    if not _REFERENCE.fullmatch(text):
        mistakes.add(place, f"{text!r}: a foreign key is written table.column")
        return "", ""
    table, _, column = text.rpartition(".")
    return table, column
