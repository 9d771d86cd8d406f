"""One store directory: open it, find an entry, publish one, drop a damaged one.

    <root>/STORE.json              format and the path it was made under
    <root>/triton, tilelang, ...   the compilers' own disk caches, pointed here by environment variables
    <root>/objects/<fp>/           artifacts of compilers that keep none (CuTeDSL)
    <root>/manifest/<fp>.json      what a built key consists of; published last, by rename
    <root>/locks/<fp>.lock         flock, never unlinked
    <root>/quarantine/<fp>.json    keys that killed or hung their compiler, and why
    <root>/events/<run>/           event logs

`fp`, the fingerprint, is a hash over kernel id, key text, target, toolchain and source. So an entry of another version of
the kernel, the compiler or the target has another name, and is never taken for this one.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jitwarm.errors import StoreError
from jitwarm.store.locks import has_locks, locked

SCHEMA = 1
_CHUNK_BYTES = 1 << 20
_STALE_S = 3600.0  # nobody takes so long to write a file
_MIN_DEPTH = 3  # <cache>/<entry>/<file>
_ELSEWHERE = "name a directory of your own: --out, or JITWARM_CACHE_DIR"


@dataclass(frozen=True)
class Entry:
    """What the manifest says of one built key.

    Attributes:
        fingerprint: The entry's name.
        kernel: Kernel id.
        key: Key text.
        target: e.g. `cuda:90`.
        toolchain: The backend's versions, one line.
        files: Path relative to the root -> SHA-256.
        compile_s: Seconds that the compile took.
    """

    fingerprint: str
    kernel: str
    key: str
    target: str
    toolchain: str
    files: dict[str, str]
    compile_s: float


class Store:
    """A directory of artifacts. Opening one creates what is missing and checks that it is private.

    Args:
        root: The directory, absolute.
        caches: Names of the compilers' caches in it. A directory that holds nothing else is becoming a store, and is made
            private; one with anything else in it is somebody's own, and keeps its mode.

    Attributes:
        has_locks: False on a file system without locks: nothing is lost there, but two processes may build the same key.

    Raises:
        StoreError: It cannot be made or written, others can write it, or its format is newer than this code.
    """

    def __init__(self, root: Path, caches: Iterable[str] = ()) -> None:
        self.root = root
        self.moved_from: Path | None = None
        try:
            self._open(set(caches))
        except OSError as exc:
            raise StoreError(
                f"cannot use {root} as a store: {exc.strerror or exc}",
                _ELSEWHERE,
            ) from exc

    @staticmethod
    def fingerprint(*parts: str) -> str:
        """The name of the entry that these parts decide: kernel id, key text, target, toolchain, source."""
        return hashlib.sha256("\0".join(("jitwarm-entry-1", *parts)).encode()).hexdigest()

    def lock(self, fingerprint: str, timeout_s: float) -> AbstractContextManager[int | None]:
        """Exclusive, across processes, until its holder leaves or dies; see `locked`. None where there are no locks."""
        if not self.has_locks:
            return nullcontext()
        return locked(self.root / "locks" / f"{fingerprint}.lock", timeout_s)

    def objects(self, fingerprint: str) -> Path:
        """Where artifacts of a compiler without a disk cache belong. May not exist."""
        return self.root / "objects" / fingerprint

    def find(self, fingerprint: str) -> Entry | None:
        """The manifest of a built key, or None; one that cannot be read counts as none."""
        try:
            record = json.loads((self.root / "manifest" / f"{fingerprint}.json").read_text(encoding="utf-8"))
            entry = Entry(**record)
            listed: dict[str, Any] = entry.files  # nobody has checked what the file says
            is_whole = all(isinstance(digest, str) and is_of_entry(name) for name, digest in listed.items())
            return entry if is_whole else None
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def damaged(self, entry: Entry) -> list[Path]:
        """The files of `entry` that are missing or are not what was published."""
        return [self.root / name for name, digest in entry.files.items() if _sha256(self.root / name) != digest]

    def publish(self, entry: Entry) -> None:
        """Write the manifest of a built key, whole or not at all.

        Raises:
            StoreError: The disk is full, or read-only.
        """
        write_json(self.root / "manifest" / f"{entry.fingerprint}.json", entry.__dict__)

    def forget(self, fingerprint: str) -> None:
        """Remove the manifest of a key; its files are the caller's to remove."""
        (self.root / "manifest" / f"{fingerprint}.json").unlink(missing_ok=True)

    def quarantine(self, fingerprint: str, record: dict[str, Any]) -> Path:
        """Remember that building this key killed or hung its compiler. Another version of anything has another fingerprint.

        Returns:
            The file to remove to have the key tried again.

        Raises:
            StoreError: The disk is full, or read-only.
        """
        path = self._quarantined(fingerprint)
        path.parent.mkdir(exist_ok=True)
        write_json(path, record)
        return path

    def quarantined(self, fingerprint: str, limits: Mapping[str, float]) -> tuple[Path, str] | None:
        """Where it is written that this key is not to be tried, and why; or None.

        Args:
            fingerprint: The key.
            limits: What it may take now, by name. A key that met a lower limit is tried again.
        """
        path = self._quarantined(fingerprint)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            met = record.get("limits", {})
            has_more = any(limits.get(name, math.inf) > float(limit) for name, limit in met.items())
            return None if has_more else (path, str(record["why"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def timings(self) -> list[tuple[str, str, float]]:
        """`(kernel id, key text, seconds)` of every entry, whatever version it is of; what cannot be read is left out."""
        found = []
        for path in (self.root / "manifest").glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                record = json.loads(path.read_text(encoding="utf-8"))
                found.append((str(record["kernel"]), str(record["key"]), float(record["compile_s"])))
        return found

    def _quarantined(self, fingerprint: str) -> Path:
        return self.root / "quarantine" / f"{fingerprint}.json"

    def digests(self, files: Iterable[Path]) -> dict[str, str]:
        """SHA-256 of those `files` that lie under the root, by relative path. Others are not this store's."""
        inside = (file for file in files if file.is_relative_to(self.root) and file.is_file())
        return {str(file.relative_to(self.root)): _sha256(file) for file in inside}

    def _open(self, caches: set[str]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        if {path.name for path in self.root.iterdir()} <= caches:
            self.root.chmod(0o700)
        status = self.root.stat()
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StoreError(
                f"{self.root} can be written by others (mode {stat.S_IMODE(status.st_mode):o}); what lies there runs on your GPU",
                f"chmod go-w {self.root}",
            )
        if status.st_uid not in (0, os.getuid()):
            raise StoreError(
                f"{self.root} belongs to user {status.st_uid}; what lies there runs on your GPU", _ELSEWHERE
            )
        for name in ("manifest", "objects", "locks"):
            (self.root / name).mkdir(exist_ok=True)
        self._check_format()
        self.has_locks = has_locks(self.root / "locks")

    def _check_format(self) -> None:
        file = self.root / "STORE.json"
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            record = None
        except ValueError:
            record = ()
        if record is not None and not isinstance(record, dict):
            raise StoreError(f"{file} is damaged", "remove the directory, or name another one")
        if record is not None and record.get("schema") != SCHEMA:
            raise StoreError(
                f"{file} has format {record.get('schema')}, this jitwarm writes {SCHEMA}", "name another directory"
            )
        if record is not None and record.get("root") != str(self.root):
            self.moved_from = Path(str(record.get("root")))
        if record is None or self.moved_from:
            with tempfile.TemporaryFile(dir=self.root):
                pass  # a directory that can be read but not written shows itself here, not in the middle of a compile

    def settle(self) -> None:
        """Record the root's path, and remove what killed writers left. Called when every backend has mended what a move broke."""
        for pattern in (
            ".STORE.json.*",
            "manifest/.*.json.*",
            "quarantine/.*.json.*",
            "tuned/.*.*",
        ):  # what else is here may be anybody's
            for path in self.root.glob(pattern):
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime > _STALE_S:
                        path.unlink()
        write_json(self.root / "STORE.json", {"schema": SCHEMA, "root": str(self.root)})


def is_of_entry(name: str) -> bool:
    """Whether a file lies below the root, in a directory of its entry's own: what is damaged is removed with that directory."""
    parts = Path(name).parts
    return not Path(name).is_absolute() and ".." not in parts and len(parts) >= _MIN_DEPTH


def remove(path: Path) -> None:
    """Remove a file or a directory; gone already is fine."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Publish JSON by rename: a reader sees the old text or the new one.

    Raises:
        StoreError: The disk is full, or read-only.
    """
    try:
        write_bytes(path, json.dumps(record, indent=1, sort_keys=True).encode())
    except OSError as exc:
        raise StoreError(f"cannot write {path}: {exc.strerror or exc}", f"free space there, or {_ELSEWHERE}") from exc


def write_bytes(path: Path, data: bytes) -> None:
    """Publish by rename: a reader sees the old bytes or the new ones.

    Raises:
        OSError: The disk is full, or read-only; nothing is left behind.
    """
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as out:
            out.write(data)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _sha256(path: Path) -> str:
    """Digest of a file; an empty text where there is none."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()
