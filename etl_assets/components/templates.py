"""`{{ … }}` in YAML."""

from __future__ import annotations

from typing import Any

from dagster.components.resolved.context import ResolutionContext


def resolved(value: Any, context: ResolutionContext) -> Any:
    """Return `value` with its templates filled in; Dagster itself would compile a template for every string."""
    if isinstance(value, dict):
        return {key: resolved(inner, context) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(inner, context) for inner in value]
    if isinstance(value, str) and ("{{" in value or "{%" in value or "{#" in value):
        return context.resolve_value(value)
    return value
