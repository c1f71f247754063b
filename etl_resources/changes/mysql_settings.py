"""What a user writes under `capture: {log: ...}` for a stream of MySQL or MariaDB."""

from __future__ import annotations

from pydantic import Field

from etl_resources.source import LogCapture


class MysqlLogCapture(LogCapture):
    """Follow the row binlog of MySQL or MariaDB."""

    server_id: int | None = Field(
        default=None, ge=1, le=2**32 - 1,
        description="Number by which the server knows this reader, other than that of every server and replica; left"
        " out, it is made from the name of the pipeline. A second reader with the same number puts the first one out.",
    )  # fmt: skip
    snapshot_rows: int = Field(default=250_000, ge=1, description="Rows of the first load that are read at one moment.")
    commit_rows: int = Field(
        default=500_000,
        ge=1,
        description="Changes after which a backlog is committed, at the next end of a transaction.",
    )
    heartbeat: float = Field(
        default=5.0, gt=0, le=3600, description="Seconds after which an idle server has to say that it is there."
    )
    lock_wait: float = Field(
        default=5.0, ge=1, le=600,
        description="Where a table has to be locked against writers for a moment so that a part of the first load can"
        " begin (MySQL; engines without transactions): seconds to wait for transactions that have written to it.",
    )  # fmt: skip
    allow_cascades: bool = Field(
        default=False,
        description="Follow tables whose rows a foreign key changes by cascade, although the server may not log those.",
    )
