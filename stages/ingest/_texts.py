"""Columns of texts without a Python object for each.

pyarrow's are not used: as soon as it is handed a list it imports pandas, if that is installed, which takes longer than
finding out that nothing changed.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class Texts:
    """A growing column of texts or bytes."""

    def __init__(self) -> None:
        self._fresh: list[bytes] = []
        self._data = bytearray()
        self._ends = [np.zeros(1, np.int64)]

    def append(self, value: str | bytes) -> None:
        """Add one; what is not valid Unicode (half a surrogate pair) is written with backslashes."""
        self._fresh.append(value.encode("utf-8", "backslashreplace") if isinstance(value, str) else value)
        if len(self._fresh) >= 8192:
            self._close()

    def _close(self) -> None:
        lengths = np.fromiter((len(value) for value in self._fresh), np.int64, len(self._fresh))
        self._ends.append(len(self._data) + np.cumsum(lengths))
        self._data += b"".join(self._fresh)
        self._fresh = []

    def offsets(self) -> NDArray[np.int64]:
        """The byte at which each begins, and that at which the last ends."""
        if self._fresh:
            self._close()
        if len(self._ends) > 1:
            self._ends = [np.concatenate(self._ends)]
        return self._ends[0]

    def raw(self, rows: Iterable[int] | NDArray[np.integer]) -> list[bytes]:
        """The bytes at these rows."""
        offsets, chosen = self.offsets(), np.asarray(rows, np.int64)
        starts, ends = offsets[chosen].tolist(), offsets[chosen + 1].tolist()
        return [bytes(self._data[start:end]) for start, end in zip(starts, ends, strict=True)]

    def take(self, rows: Iterable[int] | NDArray[np.integer]) -> list[str]:
        """The texts at these rows."""
        return [value.decode() for value in self.raw(rows)]

    def __getitem__(self, row: int) -> str:
        return self.take([row])[0]

    def where(self, rows: NDArray[np.integer]) -> "Texts":
        """A column of the texts at these rows."""
        found = Texts()
        for value in self.raw(rows):
            found.append(value)
        return found

    def __len__(self) -> int:
        return len(self.offsets()) - 1

    def digest(self) -> bytes:
        """SHA-256 of all of them."""
        offsets = self.offsets()
        return hashlib.sha256(offsets.tobytes() + self._data).digest()
