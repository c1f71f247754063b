"""From what comes over the wire, or out of unloaded files, to the declared Arrow types.

Records that these cannot hold, such as dates before the year 1, are set apart.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from etl_resources.exceptions import SchemaConflictError
from etl_resources.hex_text import unhex
from etl_resources.misfits import set_apart

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.sources.redshift_columns import Column
    from etl_resources.tables import Records

    Fitted = tuple[pa.Array, pa.Array | None]
    """The values in the column's type, and the texts of those that do not fit, else null; None: all fit."""
    Fit = Callable[[pa.Array, Column], Fitted]


def from_wire(cells: Sequence[pa.Array], columns: Sequence[Column], origin: str) -> Records:
    """Return the records of one `binary` array of texts for each column, and those that do not fit, or None."""
    return _finish(cells, columns, origin, _fit_texts)


def from_files(table: pa.Table, columns: Sequence[Column], origin: str) -> Records:
    """Return the records of a table whose columns were selected by `Column.unload`, and those that do not fit, or None.

    Raises:
        SchemaConflictError: it has other columns.
    """
    import pyarrow as pa

    if table.column_names != [column.name for column in columns]:
        raise SchemaConflictError("the columns changed while they were read", where=origin, fix="run again")
    arrays = [pa.concat_arrays(chunked.chunks) for chunked in table.columns]
    plain = [a.storage if isinstance(a, pa.ExtensionArray) else a for a in arrays]
    return _finish(plain, columns, origin, _fit_typed)


def _finish(arrays: Sequence[pa.Array], columns: Sequence[Column], origin: str, fit: Fit) -> Records:
    import pyarrow as pa

    fitted: list[pa.Array] = []
    odd: dict[str, pa.Array] = {}
    for raw, column in zip(arrays, columns, strict=True):
        array, misfits = fit(raw, column)
        fitted.append(array)
        if misfits is not None:
            odd[column.name] = misfits
    records = pa.RecordBatch.from_arrays(fitted, schema=pa.schema([(c.name, c.arrow) for c in columns]))
    return set_apart(records, odd, origin) if odd else (records, None)


def _fit_texts(raw: pa.Array, column: Column) -> Fitted:
    import pyarrow as pa

    cast = _caster(column.arrow)
    try:
        return cast(raw), None
    except (pa.ArrowInvalid, binascii.Error):
        return _one_by_one(raw, cast, column)


def _fit_typed(raw: pa.Array, column: Column) -> Fitted:
    import pyarrow as pa
    import pyarrow.compute as pc

    if raw.type == column.arrow:
        return raw, None
    if pa.types.is_string(raw.type):  # what was made a text so that Parquet cannot change it
        return _fit_texts(raw, column)
    try:
        # A REAL was made a double, and becomes what it was.
        return pc.cast(raw, column.arrow, safe=not pa.types.is_float32(column.arrow)), None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaConflictError(
            f"column {column.name} was described as {column.kind} and came as {raw.type}: the table changed while it"
            " was read", fix="run again",
        ) from error  # fmt: skip


def _caster(type_: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    """Return what makes values of a type from Redshift's texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def cast(texts: pa.Array) -> pa.Array:
        if pa.types.is_binary(type_):
            return unhex(texts)
        texts = pc.cast(texts, pa.string())
        if pa.types.is_boolean(type_):
            return pc.equal(texts, "t")
        if pa.types.is_float32(type_):
            return pc.cast(pc.cast(texts, pa.float64()), type_, safe=False)
        return pc.cast(texts, type_)

    return cast


def _one_by_one(raw: pa.Array, cast: Callable[[pa.Array], pa.Array], column: Column) -> Fitted:
    """Return what fits, and the texts of what does not: a rare batch, so its values may be turned into objects."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def fits(value: bytes | str) -> bool:
        try:
            cast(pa.array([value], raw.type))
        except (pa.ArrowInvalid, binascii.Error):
            return False
        return True

    odd = [value is not None and not fits(value) for value in raw.to_pylist()]
    texts = [
        (value.decode(errors="backslashreplace") if isinstance(value, bytes) else value) if is_odd else None
        for value, is_odd in zip(raw.to_pylist(), odd, strict=True)
    ]
    kept = pc.if_else(pa.array(odd), pa.scalar(None, raw.type), raw)
    return cast(kept).cast(column.arrow), pa.array(texts, pa.string())
