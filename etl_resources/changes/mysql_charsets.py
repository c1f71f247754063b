"""Text of any character set as UTF-8, as the server itself would convert it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from etl_resources.mysql_session import Session

_UTF8 = frozenset({"utf8", "utf8mb3", "utf8mb4", "ascii", "binary"})
_CODECS = {
    "ucs2": "utf-16-be", "utf16": "utf-16-be", "utf16le": "utf-16-le", "utf32": "utf-32-be", "gbk": "gbk",
    "gb2312": "gb2312", "gb18030": "gb18030", "big5": "big5", "sjis": "shift_jis", "cp932": "cp932", "ujis": "euc_jp",
    "eucjpms": "euc_jp", "euckr": "cp949",
}  # fmt: skip


class Charsets:
    """The character sets of one server. Those of one byte are asked for as a table of all 256."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names: dict[int, str] | None = None
        self._tables: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]] = {}

    def name(self, collation: int) -> str:
        """Return the character set of a collation."""
        if self._names is None:
            table = "collation_character_set_applicability" if self._session.is_mariadb else "collations"
            found = self._session.rows(f"SELECT id, character_set_name FROM information_schema.{table}")  # noqa: S608
            self._names = {int(number): name for number, name in found if number is not None}
        return self._names.get(collation, "utf8mb4")

    def texts(self, raw: pa.Array, collation: int) -> pa.Array:
        """Return `binary` values in UTF-8, still as `binary`: whoever makes text of them finds what is none."""
        import numpy as np

        name = self.name(collation)
        if name in _UTF8:
            return raw
        if name in _CODECS:
            return _decoded(raw, _CODECS[name])
        values = np.frombuffer(raw.buffers()[2] or b"", np.uint8)
        if not len(values) or values.max() < 0x80:
            return raw
        return _mapped(raw, *self._table(name))

    def text(self, value: bytes, collation: int) -> str:
        """Return one value as text."""
        import pyarrow as pa

        found: bytes = self.texts(pa.array([value], pa.binary()), collation)[0].as_py()
        return found.decode(errors="backslashreplace")

    def _table(self, name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        import numpy as np

        if name not in self._tables:
            asked = ", ".join(f"CONVERT(_{name} x'{code:02x}' USING utf8mb4)" for code in range(256))
            encoded = [str(text).encode() for text in self._session.rows(f"SELECT {asked}")[0]]
            table = np.zeros((256, 4), np.uint8)
            for code, text in enumerate(encoded):
                table[code, : len(text)] = list(text)
            self._tables[name] = table, np.array([len(text) for text in encoded], np.int64)
        return self._tables[name]


def _mapped(raw: pa.Array, table: NDArray[Any], sizes: NDArray[Any]) -> pa.Array:
    """Replace each byte by those of the table."""
    import numpy as np
    import pyarrow as pa

    offsets = np.frombuffer(raw.buffers()[1], np.int32)[raw.offset : raw.offset + len(raw) + 1]
    values = np.frombuffer(raw.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    length = sizes[values]
    ends = np.concatenate([[0], np.cumsum(length)])
    flat = table[values][np.arange(4) < length[:, None]]
    moved = ends[offsets - offsets[0]].astype(np.int32)
    return pa.Array.from_buffers(
        pa.binary(), len(raw), [raw.buffers()[0] if raw.null_count else None, pa.py_buffer(moved), pa.py_buffer(flat)]
    )


def _decoded(raw: pa.Array, codec: str) -> pa.Array:
    """Return each distinct value decoded; what is no text of that codec stays as it is."""
    import pyarrow as pa

    def convert(value: bytes) -> bytes:
        try:
            return value.decode(codec).encode()
        except UnicodeDecodeError:
            return value

    known = raw.dictionary_encode()
    return pa.array([convert(v) for v in known.dictionary.to_pylist()], pa.binary()).take(known.indices)
