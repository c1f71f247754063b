"""A query's result by way of S3: UNLOAD, its manifest, and the files that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError, EtlError, NotFoundError, RowsNotConservedError
from etl_resources.redshift_sql import literal
from etl_resources.unloaded import ObjectStore, Unload, folder_below, read_files

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.files.storage import Storage
    from etl_resources.redshift_session import Session


def unloaded(
    session: Session,
    query: str,
    unload: Unload,
    store: ObjectStore,
    iam_role: str | None,
    *,
    where: str,
    batch_rows: int,
) -> Iterator[pa.Table]:
    """Yield the result of a query, which the server writes to S3; the objects are removed at the end, or on failure.

    Raises:
        RowsNotConservedError: the files hold other rows than the server says it wrote.
        UnavailableError, CredentialsRejectedError, NotFoundError, EngineError: of the server, or of the object store.
    """
    storage = store.storage()
    with folder_below(unload.to, storage) as folder:
        rows = _run(session, query, folder, store, iam_role)
        paths = _files(folder, storage, rows, where) if rows else []
        yield from read_files(paths, storage, rows, where, batch_rows)


def _run(session: Session, query: str, folder: str, store: ObjectStore, iam_role: str | None) -> int:
    """Run the UNLOAD; return the rows that the server says it wrote."""
    access, secrets = _access(store, iam_role)
    region = store.option("region")
    statement = (
        f"UNLOAD ({literal(query)}) TO {literal(folder)} {access} FORMAT AS PARQUET MANIFEST VERBOSE"
        + (f" REGION AS {literal(region)}" if region else "")
    )  # fmt: skip
    try:
        session.execute(statement)
    except EtlError as error:
        # A server may cite the statement, which holds the keys.
        what = error.what
        for secret in secrets:
            what = what.replace(secret, "…")
        raise type(error)(what, where=error.where, fix=error.fix) from None
    ((rows,),) = session.rows("SELECT pg_last_unload_count()")
    return int(rows or 0)


def _access(store: ObjectStore, iam_role: str | None) -> tuple[str, list[str]]:
    """Return what lets the server write, as SQL, and the secrets in it."""
    if iam_role is not None:
        return f"IAM_ROLE {'default' if iam_role == 'default' else literal(iam_role)}", []
    key, secret, token = (store.secret(f"{n}") for n in ("access_key_id", "secret_access_key", "session_token"))
    if key is None or secret is None:
        raise ConfigurationError(
            "`unload` needs something that lets Redshift write to S3",
            fix="give `iam_role`, or `access_key_id` and `secret_access_key` under `store: {secrets: …}`",
        )
    access = f"ACCESS_KEY_ID {literal(key)} SECRET_ACCESS_KEY {literal(secret)}"
    if token is None:
        return access, [key, secret]
    return f"{access} SESSION_TOKEN {literal(token)}", [key, secret, token]


def _files(folder: str, storage: Storage, rows: int, where: str) -> list[str]:
    """Return the files that the manifest names, whose counts have to agree with the server's."""
    try:
        with storage.open(f"{folder}manifest") as stream:
            manifest: dict[str, Any] = json.loads(stream.read())
    except NotFoundError:
        raise RowsNotConservedError(
            f"the server wrote {rows:,} rows and no manifest", where=where, fix="run again"
        ) from None
    entries = manifest["entries"]
    counts = [entry.get("meta", {}).get("record_count") for entry in entries]
    if None not in counts and sum(counts) != rows:
        raise RowsNotConservedError(
            f"the server says that it wrote {rows:,} rows, and its manifest {sum(counts):,}", where=where,
            fix="run again",
        )  # fmt: skip
    return [entry["url"] for entry in entries]
