"""Tuned results in a store: bytes, and a record beside them that says what they are and what they must hash to.

    <root>/tuned/<fp>.bin     the bytes of the artifact's author
    <root>/tuned/<fp>.json    the record; published last, by rename

`fp` is a hash over artifact, target, versions and the artifact's own fingerprint. The record is what counts: bytes without
one, or with another checksum, are a miss.
"""

import contextlib
import hashlib
import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from jitwarm.errors import JitwarmError, StoreError
from jitwarm.store.locks import has_locks, locked
from jitwarm.store.store import write_bytes

DIRECTORY = "tuned"


@dataclass(frozen=True)
class TunedRecord:
    """What is known of a kept result.

    Attributes:
        fingerprint: The entry's name.
        artifact: Artifact id.
        target: e.g. `cuda:90`.
        toolchain: Versions, one line.
        config: The artifact's own fingerprint.
        sha256: Of the bytes.
        created: When it was tuned, seconds since the epoch.
        tune_s: Seconds that the tuning took.
    """

    fingerprint: str
    artifact: str
    target: str
    toolchain: str
    config: str
    sha256: str
    created: float
    tune_s: float


class TunedStore:
    """The tuned results of one store. Nothing is made before something is published; a read-only root can be read.

    Args:
        root: The store's root.
        lock_timeout_s: Longest wait for another process that publishes the same entry.
    """

    def __init__(self, root: Path, lock_timeout_s: float) -> None:
        self._directory = root / DIRECTORY
        self._locks = root / "locks"
        self._lock_timeout_s = lock_timeout_s

    def find(self, fingerprint: str) -> tuple[bytes | None, str]:
        """The bytes of an entry; or None, and why what is there cannot be used (empty where nothing is there)."""
        try:
            record = TunedRecord(**json.loads(self._record(fingerprint).read_text(encoding="utf-8")))
            data = self._data(fingerprint).read_bytes()
        except FileNotFoundError as exc:
            is_torn = self._record(fingerprint).exists()
            return None, f"{exc.filename} is missing" if is_torn else ""
        except (OSError, ValueError, TypeError) as exc:
            return None, f"{self._record(fingerprint)} cannot be read: {type(exc).__name__}: {exc}"
        if record.fingerprint != fingerprint or sha256(data) != record.sha256:
            return None, f"{self._data(fingerprint)} is not what was published"
        return data, ""

    def publish(self, record: TunedRecord, data: bytes) -> None:
        """Keep a result, whole or not at all; what was kept under its name is replaced.

        Raises:
            StoreError: The disk is full, or read-only, or another process holds the entry's lock for too long.
        """
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            with self._locked(record.fingerprint):
                write_bytes(self._data(record.fingerprint), data)
                text = json.dumps(asdict(record), indent=1, sort_keys=True)
                write_bytes(self._record(record.fingerprint), text.encode())
        except JitwarmError:
            raise
        except OSError as exc:
            raise StoreError(f"cannot write {self._directory}: {exc.strerror or exc}", "free space there") from exc

    def forget(self, fingerprint: str) -> None:
        """Remove the record of an entry, so that it is a miss. Never raises."""
        with contextlib.suppress(OSError):
            self._record(fingerprint).unlink(missing_ok=True)

    def _locked(self, fingerprint: str) -> AbstractContextManager[object]:
        """Bytes and record of two writers must not mix."""
        self._locks.mkdir(exist_ok=True)
        if not has_locks(self._locks):
            return nullcontext()
        return locked(self._locks / f"{DIRECTORY}-{fingerprint}.lock", self._lock_timeout_s)

    def _data(self, fingerprint: str) -> Path:
        return self._directory / f"{fingerprint}.bin"

    def _record(self, fingerprint: str) -> Path:
        return self._directory / f"{fingerprint}.json"


def sha256(data: bytes) -> str:
    """Digest of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
