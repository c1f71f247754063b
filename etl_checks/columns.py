"""Columns of a contract and their types: logical type and physical type of ODCS to DuckDB and Arrow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from etl_checks.mistakes import Mistakes, Place, did_you_mean, listed

if TYPE_CHECKING:
    import pyarrow as pa

_PHYSICAL = {
    "string": {
        **dict.fromkeys(("VARCHAR", "TEXT", "STRING", "CHAR", "JSON", "UUID"), "VARCHAR"),
        **dict.fromkeys(("BLOB", "BYTEA", "BINARY", "VARBINARY"), "BLOB"),
    },
    "integer": {
        **dict.fromkeys(("BIGINT", "INT64", "LONG", "I64"), "BIGINT"),
        **dict.fromkeys(("INTEGER", "INT", "INT32", "I32"), "INTEGER"),
        **dict.fromkeys(("SMALLINT", "INT16", "SHORT", "I16"), "SMALLINT"),
        **dict.fromkeys(("TINYINT", "I8"), "TINYINT"),
    },
    "number": {
        **dict.fromkeys(("DOUBLE", "DOUBLE PRECISION", "FLOAT64", "FLOAT8", "F64"), "DOUBLE"),
        **dict.fromkeys(("FLOAT", "REAL", "FLOAT32", "FLOAT4", "F32"), "FLOAT"),
    },
    "boolean": dict.fromkeys(("BOOLEAN", "BOOL"), "BOOLEAN"),
    "date": {"DATE": "DATE"},
    "timestamp": {
        **dict.fromkeys(("TIMESTAMP", "DATETIME", "TIMESTAMP_NTZ", "TIMESTAMP WITHOUT TIME ZONE"), "TIMESTAMP"),
        **dict.fromkeys(("TIMESTAMPTZ", "TIMESTAMP_TZ", "TIMESTAMP WITH TIME ZONE"), "TIMESTAMP WITH TIME ZONE"),
    },
}
_DEFAULT = {
    "string": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}
_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC|NUMBER)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
_SIZED_TEXT = re.compile(r"(?:VAR)?CHAR\s*\(\s*(\d+)\s*\)")
_UNSTORABLE = {
    "time": "Delta has no time of day: use a string with format or an integer of seconds",
    "vector": "vectors are not supported: use an array of numbers",
}
_PERSONAL = {"restricted", "personal", "confidential-personal", "pii"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column, or one field inside of a struct (`fields`), list (`item`) or map (`map_key`, `item`)."""

    name: str
    logical_type: str
    physical_type: str | None
    duckdb_type: str
    required: bool = False
    primary_key: bool = False
    description: str = ""
    classification: str | None = None
    personal: bool = False
    fields: tuple[Column, ...] = ()
    item: Column | None = None
    map_key: Column | None = None

    @property
    def has_personal(self) -> bool:
        """Whether the column or anything inside of it is personal."""
        return self.personal or any(inner.has_personal for inner in self._inner())

    def _inner(self) -> Iterator[Column]:
        yield from self.fields
        yield from (inner for inner in (self.map_key, self.item) if inner is not None)


def custom_properties(element: Any) -> dict[str, Any]:
    """Return `customProperties` of an element of the contract as name -> value."""
    entries = element.get("customProperties") if isinstance(element, dict) else None
    return {e["property"]: e.get("value") for e in entries or () if isinstance(e, dict) and "property" in e}


def read_column(element: dict[str, Any], place: Place, mistakes: Mistakes, *, inside: bool = False) -> Column | None:
    """Return the column an ODCS property describes, or None after noting why it has no type."""
    kind = element.get("logicalType")
    if kind is None and not mistakes.touch((*place, "logicalType")):
        mistakes.add(place, "'logicalType' is missing")
    if kind in _UNSTORABLE:
        mistakes.add((*place, "logicalType"), _UNSTORABLE[kind])
    if inside:
        _refuse_rules(element, place, mistakes)
    fields, map_key, item = _children(element, kind, place, mistakes)
    duckdb_type = _nested_type(kind, fields, map_key, item) or _scalar_type(element, kind, place, mistakes)
    if duckdb_type is None:
        return None
    classification = element.get("classification")
    privacy = custom_properties(element).get("privacy")
    return Column(
        name=str(element.get("name", "")),
        logical_type=str(kind),
        physical_type=element.get("physicalType"),
        duckdb_type=duckdb_type,
        required=bool(element.get("required") or element.get("primaryKey")),
        primary_key=bool(element.get("primaryKey")),
        description=str(element.get("description") or ""),
        classification=classification,
        personal=str(classification).lower() in _PERSONAL or privacy not in (None, False, "none"),
        fields=fields,
        item=item,
        map_key=map_key,
    )


def text_limit(element: dict[str, Any]) -> int | None:
    """Return n of a physical type VARCHAR(n) or CHAR(n)."""
    match = _SIZED_TEXT.fullmatch(str(element.get("physicalType", "")).strip().upper())
    return int(match[1]) if match else None


def typed_value(value: Any, logical_type: str) -> bool:
    """Whether a value of the YAML fits a column of that logical type."""
    if logical_type == "string":
        return isinstance(value, str)
    if logical_type == "boolean":
        return isinstance(value, bool)
    if logical_type in ("integer", "number"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) < float("inf") and (logical_type == "number" or float(value).is_integer())
    if logical_type in ("date", "timestamp") and isinstance(value, str):
        try:
            (date if logical_type == "date" else datetime).fromisoformat(value)
        except ValueError:
            return False
        return True
    return False


def _refuse_rules(element: dict[str, Any], place: Place, mistakes: Mistakes) -> None:
    ruled = [
        key for key in ("required", "unique", "primaryKey", "enum", "relationships", "quality") if element.get(key)
    ]
    options = set(element.get("logicalTypeOptions") or ()) - {"format", "timezone", "defaultTimezone"}
    for key in [*ruled, *(["logicalTypeOptions"] if options or _text_format(element) else [])]:
        mistakes.add(
            (*place, key),
            "is not checked inside of a struct, list or map: flatten it, or write a rule of type sql",
        )


def _text_format(element: dict[str, Any]) -> bool:
    return element.get("logicalType") == "string" and "format" in (element.get("logicalTypeOptions") or ())


def _children(
    element: dict[str, Any], kind: Any, place: Place, mistakes: Mistakes
) -> tuple[tuple[Column, ...], Column | None, Column | None]:
    """Return fields, map key, item."""
    if kind == "object":
        listed_fields = element.get("properties")
        if not listed_fields:
            mistakes.add(place, "an object needs the 'properties' that it is made of")
        found = [
            read_column(field, (*place, "properties", index), mistakes, inside=True)
            for index, field in enumerate(listed_fields or ())
            if isinstance(field, dict)
        ]
        return tuple(column for column in found if column), None, None
    if kind == "array":
        if not isinstance(element.get("items"), dict):
            mistakes.add(place, "an array needs 'items'")
            return (), None, None
        return (), None, read_column(element["items"], (*place, "items"), mistakes, inside=True)
    if kind == "map" and isinstance(element.get("map"), dict):
        sides = [
            read_column(element["map"][side], (*place, "map", side), mistakes, inside=True)
            for side in ("key", "value")
            if isinstance(element["map"].get(side), dict)
        ]
        return ((), *sides) if len(sides) == 2 else ((), None, None)  # type: ignore[return-value]
    return (), None, None


def _nested_type(kind: Any, fields: tuple[Column, ...], map_key: Column | None, item: Column | None) -> str | None:
    if kind == "object" and fields:
        from etl_resources.engines.duckdb import quote

        return f"STRUCT({', '.join(f'{quote(field.name)} {field.duckdb_type}' for field in fields)})"
    if kind == "array" and item:
        return f"{item.duckdb_type}[]"
    if kind == "map" and map_key and item:
        return f"MAP({map_key.duckdb_type}, {item.duckdb_type})"
    return None


def _scalar_type(element: dict[str, Any], kind: Any, place: Place, mistakes: Mistakes) -> str | None:
    if kind not in _DEFAULT:
        return None
    options = element.get("logicalTypeOptions")
    options = options if isinstance(options, dict) else {}
    physical = element.get("physicalType")
    written = {
        "physicalType": _from_physical(physical, kind, (*place, "physicalType"), mistakes) if physical else None,
        "format": _from_format(options, kind, (*place, "logicalTypeOptions", "format"), mistakes),
        "timezone": _from_timezone(options, kind),
    }
    found = {name: duckdb_type for name, duckdb_type in written.items() if duckdb_type}
    if len(set(found.values())) > 1:
        mistakes.add(place, f"{' and '.join(found)} contradict each other: {' and '.join(found.values())}")
    return next(iter(found.values()), _DEFAULT[kind])


def _from_physical(physical: Any, kind: str, place: Place, mistakes: Mistakes) -> str | None:
    text = " ".join(str(physical).strip().upper().split())
    if kind == "string" and _SIZED_TEXT.fullmatch(text):
        return "VARCHAR"
    if kind in ("number", "integer") and (match := _DECIMAL.fullmatch(text)):
        precision, scale = int(match[1]), int(match[2] or 0)
        if not (1 <= precision <= 38 and scale <= precision):
            mistakes.add(place, f"{physical}: precision is 1 to 38, scale 0 to precision")
            return None
        if kind == "integer" and scale:
            mistakes.add(place, f"{physical} has decimals: the logicalType is number")
        return f"DECIMAL({precision},{scale})"
    if text in ("DECIMAL", "NUMERIC", "NUMBER"):
        mistakes.add(place, f"{physical} needs precision and scale, as in decimal(12,2)")
        return None
    known = _PHYSICAL[kind]
    if text not in known:
        hint = did_you_mean(text, known) or f"; known are {listed(sorted(known))}"
        mistakes.add(place, f"{physical!r} is no physical type of a {kind}{hint}")
    return known.get(text)


def _from_format(options: dict[str, Any], kind: str, place: Place, mistakes: Mistakes) -> str | None:
    if kind not in ("integer", "number") or "format" not in options:
        return None
    name = str(options["format"]).upper()
    if name in ("U8", "U16", "U32", "U64", "I128", "U128"):
        mistakes.add(
            place, f"Delta has no {options['format']}: take a wider signed type or decimal(38,0), and minimum: 0"
        )
    return _PHYSICAL[kind].get(name)


def _from_timezone(options: dict[str, Any], kind: str) -> str | None:
    if kind != "timestamp" or "timezone" not in options:
        return None
    return "TIMESTAMP WITH TIME ZONE" if options["timezone"] else "TIMESTAMP"


def arrow_field(column: Column) -> pa.Field:
    """Return the Arrow field of a column, with description and classification as metadata.

    Every field is nullable: whether NULL is allowed is a rule, and a rule can be loosened without rewriting a table.
    """
    import pyarrow as pa

    metadata = {"description": column.description, "classification": column.classification}
    return pa.field(
        column.name, _arrow_type(column), metadata={key: value for key, value in metadata.items() if value} or None
    )


def _arrow_type(column: Column) -> pa.DataType:
    import pyarrow as pa

    if column.fields:
        return pa.struct([arrow_field(field) for field in column.fields])
    if column.map_key and column.item:
        return pa.map_(_arrow_type(column.map_key), _arrow_type(column.item))
    if column.item:
        return pa.list_(_arrow_type(column.item))
    if column.duckdb_type.startswith("DECIMAL"):
        precision, scale = map(int, re.findall(r"\d+", column.duckdb_type))
        return pa.decimal128(precision, scale)
    return {
        "VARCHAR": pa.string(),
        "BLOB": pa.binary(),
        "BIGINT": pa.int64(),
        "INTEGER": pa.int32(),
        "SMALLINT": pa.int16(),
        "TINYINT": pa.int8(),
        "DOUBLE": pa.float64(),
        "FLOAT": pa.float32(),
        "BOOLEAN": pa.bool_(),
        "DATE": pa.date32(),
        "TIMESTAMP": pa.timestamp("us"),
        "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", tz="UTC"),
    }[column.duckdb_type]
