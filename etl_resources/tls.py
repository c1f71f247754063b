"""How certificates of servers are verified. Contexts are built once: to read all authorities takes 20 to 40 ms."""

from __future__ import annotations

import os
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from etl_resources.exceptions import ConfigurationError

HTTP = ("http/1.1",)
"""The protocol that HTTP clients offer. They set it themselves, in contexts that they are given."""
Check = Literal["identity", "authority", "nothing"]
Stamp = tuple[object, ...]
"""Whatever is another one when a file or folder, or the environment, is no longer as it was."""


@dataclass(frozen=True)
class _Wanted:
    """What a context depends on, beside what lies in the files."""

    file: str | None
    folder: str | None
    check: Check
    offered: tuple[str, ...]


_LOCK = threading.Lock()
_BUILT: dict[_Wanted, tuple[Stamp, ssl.SSLContext]] = {}


def context(
    ca_file: str | None = None,
    *,
    setting: str,
    where: str = "",
    ca_folder: str | None = None,
    check: Check = "identity",
    offered: tuple[str, ...] = (),
) -> ssl.SSLContext:
    """Return a context that trusts the authorities of a file or folder; of neither: those that the system trusts.

    It is shared by all that ask for the same, and must not be changed: no client certificates, no other checks. When
    the file is replaced, or the environment names another one, the next call returns another context.

    `check`: that an authority vouches for the host (`identity`) or for anybody (`authority`), or `nothing`. `offered`
    are protocols (ALPN). `setting`, which names the file, and `where` are for messages.

    Raises:
        ConfigurationError: the file is not there, or holds no certificates.
    """
    wanted = _Wanted(ca_file or None, ca_folder or None, check, offered)
    with _LOCK:
        stamp = _stamp(wanted)  # before the file is read: what is written meanwhile is seen next time
        stamped, made = _BUILT.get(wanted, (None, None))
        if made is None or stamped != stamp:
            try:
                made = _build(wanted)
            except OSError as error:  # as those of ssl are
                raise ConfigurationError(
                    f"{ca_file or ca_folder} cannot be used, it should hold certificates of authorities: {error}",
                    where=where, fix=f"check `{setting}`",
                ) from error  # fmt: skip
            _BUILT[wanted] = (stamp, made)
        return made


def usual_of_http() -> tuple[str | None, str | None]:
    """Return the file, or the folder, of the authorities that HTTP clients trust: as httpx has it."""
    import certifi

    file, folder = _named()
    if file:
        return file, None
    return (None, folder) if folder else (certifi.where(), None)


def _build(wanted: _Wanted) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=wanted.file, capath=wanted.folder)
    if wanted.check != "identity":
        made.check_hostname = False
    if wanted.check == "nothing":
        made.verify_mode = ssl.CERT_NONE
    if wanted.offered:
        made.set_alpn_protocols(wanted.offered)
    return made


def _stamp(wanted: _Wanted) -> Stamp:
    if wanted.file is None and wanted.folder is None:
        usual = ssl.get_default_verify_paths()  # as the environment has it now
        return (*_named(), _state(usual.cafile), _state(usual.capath))
    return _state(wanted.file), _state(wanted.folder)


def _named() -> tuple[str | None, str | None]:
    return os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")


def _state(path: str | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        found = Path(path).stat()
    except OSError:
        return None  # whoever reads it says why
    return found.st_mtime_ns, found.st_size, found.st_ino
