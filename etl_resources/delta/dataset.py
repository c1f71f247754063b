"""A table as an Arrow dataset: slower than its files, but it knows partition columns and every object store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

    from etl_resources.delta.handle import Handle


def dataset_of(
    handle: Handle, files: Collection[str] | None, columns: Sequence[str], named: str | None
) -> ds.Dataset | pa.RecordBatchReader:
    """Return the data files, or some of them by their paths in the log.

    With `named`, a reader of `columns` and, under that name, the path of the file that a row is in.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    found = handle.delta.to_pyarrow_dataset()
    if files is not None:
        some = [fragment for fragment in found.get_fragments() if fragment.path in files]
        found = ds.FileSystemDataset(some, found.schema, found.format, found.filesystem)
    if named is None:
        return found
    # By name alone: in an expression it is unknown.
    reader = found.scanner(columns=[*columns, "__filename"]).to_reader()
    schema = pa.schema([*(reader.schema.field(name) for name in columns), pa.field(named, pa.string())])
    batches = (pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in reader)
    return pa.RecordBatchReader.from_batches(schema, batches)
