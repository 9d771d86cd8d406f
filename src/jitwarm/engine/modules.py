"""GPU code that is loaded after a server has measured its memory: nobody counted it, so it may be kept within a limit."""

from collections.abc import Collection
from pathlib import Path

from jitwarm.errors import Skipped
from jitwarm.store import Entry

# What holds GPU code: Triton's binaries, TileLang's libraries, CuTeDSL's objects.
_WITH_CODE = frozenset({".cubin", ".hsaco", ".so", ".o"})


class LateModules:
    """Counts the code of entries as they are loaded.

    Args:
        root: The store's directory.
        limit_bytes: Of all together; None means no limit.
        counted: Fingerprints of entries that were loaded before.

    Attributes:
        n: Entries so far.
        n_bytes: Their files with GPU code. A driver takes more: it rounds, and keeps tables.
    """

    def __init__(self, root: Path, limit_bytes: int | None, counted: Collection[str] = ()) -> None:
        self.n = 0
        self.n_bytes = 0
        self._root = root
        self._limit_bytes = limit_bytes
        self._counted = counted

    def take(self, entry: Entry) -> None:
        """Count an entry that is about to be loaded.

        Raises:
            Skipped: It would exceed the limit. The next, smaller one may not.
        """
        if entry.fingerprint in self._counted:
            return
        n_bytes = sum(self._size(name) for name in entry.files if Path(name).suffix in _WITH_CODE)
        if self._limit_bytes is not None and self.n_bytes + n_bytes > self._limit_bytes:
            raise Skipped(
                f"it is built and not loaded: with its {n_bytes:,} bytes of GPU code, {self.n_bytes + n_bytes:,} would be loaded "
                f"after the server measured its memory, and {self._limit_bytes:,} may be",
                "it is loaded at its first use; raise JITWARM_MAX_LATE_MODULE_BYTES, or start again: what is built by then is "
                "loaded before",
            )
        self.n += 1
        self.n_bytes += n_bytes

    def _size(self, name: str) -> int:
        try:
            return (self._root / name).stat().st_size
        except OSError:
            return 0
