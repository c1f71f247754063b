"""What would change in the columns of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from etl_resources.exceptions import SchemaConflictError

if TYPE_CHECKING:
    import pyarrow as pa


def changes(
    present: pa.Schema | None, wanted: pa.Schema, *, what: Literal["source", "contract"] = "source"
) -> list[str]:
    """Return the changes, one line each.

    Args:
        present: columns of the table; None: there is no table yet.
        wanted: columns that the source gives or the contract asks for.

    Raises:
        SchemaConflictError: a column would have to change its type.
    """
    from etl_resources.delta.evolution import merge_schemas

    own = [field for field in wanted if not field.name.startswith("_")]
    if present is None:
        return [f"new table with {len(own)} columns"]
    try:
        merge_schemas(present, wanted, where=what)
    except SchemaConflictError as error:
        raise SchemaConflictError(
            error.what, where=error.where, fix="mend the types, or build the table anew: --full-refresh"
        ) from error
    names = [name for name in present.names if not name.startswith("_")]
    added = [f"adds column {field.name} ({field.type})" for field in own if field.name not in names]
    gone = [f"column {name} is no longer in the {what}" for name in names if name not in wanted.names]
    return added + gone
