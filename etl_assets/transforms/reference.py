"""The table of all steps in docs/transforms.md, out of the registry: `python -m etl_assets.transforms.reference`."""

from __future__ import annotations

import sys

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from etl_assets.transforms.parameters import STEPS, Parameters
from etl_assets.transforms.step import parse_steps

_SECTIONS = {
    "text": "Text", "title": "Text", "html": "Text", "values": "Numbers, dates, booleans", "phone": "Contact",
    "contact": "Contact", "statistics": "Numbers, dates, booleans", "shaping": "Columns", "keys": "Columns",
    "filters": "Rows", "nesting": "Tables (gold)", "aggregates": "Tables (gold)", "windows": "Tables (gold)",
    "joins": "Tables (gold)", "pivots": "Tables (gold)", "correlation": "Tables (gold)",
}  # fmt: skip
"""Module -> heading."""


_HEAD = "| step | what it does | parameters | example |\n|---|---|---|---|\n"


def reference() -> str:
    """Return Markdown: a table per family, one line per step with what it does, its parameters and an example."""
    sections: dict[str, list[str]] = {heading: [] for heading in _SECTIONS.values()}
    for kind in STEPS.values():
        module = kind.runs.partition(":")[0].rpartition(".")[2]
        sections[_SECTIONS[module]].append(_row(kind))
    return "\n".join(f"### {heading}\n\n{_HEAD}" + "".join(rows) for heading, rows in sections.items())


def _row(kind: type[Parameters]) -> str:
    does = " ".join((kind.__doc__ or "").split()) + (" *Gold only.*" if _is_gold_only(kind) else "")
    parameters = "<br>".join(
        f"`{field.alias or name}`{_default(field)}: {field.description}" for name, field in kind.model_fields.items()
    )
    cells = (f"`{kind.step}`", does, parameters, f"`{kind.example}`")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _is_gold_only(kind: type[Parameters]) -> bool:
    [step] = parse_steps([yaml.safe_load(kind.example)], layer="gold", where="example")
    return bool(step.parameters.looks_at_other_rows())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return " (required)"
    if field.default is PydanticUndefined or field.default in (None, (), {}):
        return ""
    words = field.default if isinstance(field.default, tuple) else (field.default,)
    return f" (default {', '.join(f'`{word}`' if word != '' else 'nothing' for word in words)})"


if __name__ == "__main__":
    sys.stdout.write(reference())
