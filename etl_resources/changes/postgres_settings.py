"""What a user may set about the capture of a PostgreSQL change log."""

from __future__ import annotations

from pydantic import Field, model_validator

from etl_resources.source import LogCapture

_NAME = r"^[a-z0-9_]{1,63}$"


class PostgresLogCapture(LogCapture):
    """`capture: {log: ...}` of a stream of type postgres; the streams of a pipeline and connection share one log."""

    slot: str | None = Field(
        default=None, pattern=_NAME, description="Name of the replication slot; `etl_<pipeline>` if left out."
    )
    publication: str | None = Field(default=None, description="Name of the publication; that of the slot if left out.")
    chunk_rows: int = Field(
        default=200_000, ge=1,
        description="Rows of a table that are read at once while its snapshot runs beside the log; fewer where rows are"
        " wide.",
    )  # fmt: skip
    max_changes: int = Field(
        default=2_000_000, ge=1,
        description="Changes after which the lake commits, at the next end of a transaction; about so many where a long"
        " log is read from two places. Every look at the log begins where the oldest open transaction began, so small"
        " numbers cost the server a multiple.",
    )  # fmt: skip
    max_retained: int | None = Field(
        default=None, ge=1,
        description="Bytes of log that the server may keep because of the slot; more is an alarm. None: what the server"
        " allows (`max_slot_wal_keep_size`).",
    )  # fmt: skip
    drop_beyond_cap: bool = Field(
        default=False,
        description="Beyond `max_retained` the slot is dropped, to save the server's disk; the streams are then lost"
        " and have to be read anew.",
    )
    heartbeat: bool = Field(
        default=True,
        description="Write a short message into the log (no table needed) before each look at it, so that the slot can"
        " move on although the captured tables are quiet. While a snapshot runs it is written in any case.",
    )

    @model_validator(mode="after")
    def _cap_for_dropping(self) -> PostgresLogCapture:
        if self.drop_beyond_cap and self.max_retained is None:
            raise ValueError("`drop_beyond_cap` needs `max_retained`")
        return self
