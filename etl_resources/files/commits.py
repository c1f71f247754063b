"""What a folder written by the file target holds: the loads that are in it, and the rows of each file."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from etl_resources.exceptions import ConfigurationError
from etl_resources.target import CommitToken, Counts, Mode


@dataclass
class Commits:
    """`commits`: app id -> its last load. `files`: file name -> rows."""

    commits: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)

    @classmethod
    def loads(cls, text: str | bytes | None, where: str) -> Commits:
        """Return the record; None: nothing has been written there.

        Raises:
            ConfigurationError: the file is not one of ours.
        """
        if not text:
            return cls()
        try:
            record = json.loads(text)
            return cls(dict(record["commits"]), dict(record["files"]))
        except (ValueError, KeyError, TypeError):
            raise ConfigurationError(
                f"the record of commits in {where} cannot be read",
                where=where,
                fix="give the target a folder of its own",
            ) from None

    def dumps(self) -> str:
        """Return the record as JSON, ASCII only, so that it can also be the metadata of an object."""
        return json.dumps(asdict(self), ensure_ascii=True)

    def version(self, app_id: str) -> int | None:
        """Return the last version of a publishing asset."""
        entry = self.commits.get(app_id)
        return int(entry["version"]) if entry else None

    def counts(self, token: CommitToken) -> Counts:
        """Return what became of a load that is in, if it is the last one."""
        entry = self.commits[token.app_id]
        known = entry["counts"] if int(entry["version"]) == token.version else {}
        return Counts(**known, already_committed=True)

    def of(self, app_id: str, name: str) -> Commits:
        """Return the part that belongs to one load; it is bounded, however many loads there were."""
        return Commits({app_id: self.commits[app_id]}, {name: self.files[name]})

    def after(self, token: CommitToken, mode: Mode, name: str, counts: Counts) -> Commits:
        """Return the record as it is when the load is in."""
        kept = {} if mode == "replace" else self.files
        entry = {
            "version": token.version, "run_id": token.run_id, "mode": mode, "at": dt.datetime.now(dt.UTC).isoformat(),
            "counts": {"read": counts.read, "inserted": counts.inserted, "deleted": counts.deleted},
        }  # fmt: skip
        return Commits(self.commits | {token.app_id: entry}, kept | {name: counts.inserted})


def file_name(token: CommitToken, suffix: str) -> str:
    """Return the name of the file of one load: the same token gives the same name."""
    return f"{file_stem(token.app_id)}-{token.version:012d}{suffix}"


def file_stem(app_id: str) -> str:
    """Return what the names of all files of one publishing asset begin with, readable and not to be mistaken."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", app_id).strip("-").lower()[:60]
    return f"{readable}-{hashlib.sha256(app_id.encode()).hexdigest()[:8]}"
