"""A built entry on its way from one store to another: packed as text, checked as a stranger's, published whole.

Always bytes, whether or not the two hosts share a file system: a path that is there on both may still be two directories.
"""

import base64
import binascii
import contextlib
import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jitwarm.contract.backend import Backend
from jitwarm.engine.jobs import Job, Reply
from jitwarm.errors import HostError, StoreError
from jitwarm.store import Entry, Store
from jitwarm.store.store import is_of_entry


def pack(store: Store, entry: Entry) -> dict[str, dict[str, str]]:
    """The files of an entry, for `Reply.files`: those of its manifest and what the compiler put beside them."""
    directories = {(store.root / name).parent for name in entry.files}
    files = sorted(file for directory in directories for file in directory.iterdir() if file.is_file())
    return {file.relative_to(store.root).as_posix(): _packed(file.read_bytes()) for file in files}


def _packed(content: bytes) -> dict[str, str]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "data": base64.b64encode(content).decode()}


def publish(store: Store, reply: Reply, job: Job, fingerprint: str, backends: Sequence[Backend]) -> None:
    """Check what a host has sent for `job`, and put it into the store; the manifest last.

    Args:
        store: Where to.
        reply: Nothing in it is believed.
        job: What was asked for.
        fingerprint: The entry's name here.
        backends: All that are known: they say where files may lie, and mend those that hold paths.

    Raises:
        HostError: It is damaged, or not what was asked for; nothing was published.
        StoreError: The disk is full, or read-only.
    """
    try:
        contents = _checked(reply, job, fingerprint, backends)
    except (TypeError, ValueError, KeyError, AttributeError) as exc:
        why = str(exc) if type(exc) is ValueError else f"{type(exc).__name__}: {exc}"
        raise HostError(
            f"host {reply.host} sent what cannot be used: {why}", "bake again", f"host {reply.host}"
        ) from exc
    mended = {name: _mended(store.root / name, content, reply, backends) for name, content in contents.items()}
    listed = reply.entry["files"]
    # What a manifest lists first: other files may point to those, and a compiler looks at them without our lock.
    for name in sorted(mended, key=lambda name: name not in listed):
        _write(store.root / name, mended[name])
    digests = {name: hashlib.sha256(mended[name]).hexdigest() for name in listed}
    store.publish(Entry(**{**reply.entry, "files": digests}))


def _checked(reply: Reply, job: Job, fingerprint: str, backends: Sequence[Backend]) -> dict[str, bytes]:
    """The content of each file.

    Raises:
        ValueError: What is wrong, in words.
        TypeError, KeyError, AttributeError: It has another form.
    """
    entry = Entry(**reply.entry)
    asked = (fingerprint, job.kernel, job.key, job.target)
    if (entry.fingerprint, entry.kernel, entry.key, entry.target) != asked:
        raise ValueError(f"an entry of {entry.kernel!r} for {entry.target!r}, not the one that was asked for")
    if missing := entry.files.keys() - reply.files.keys():
        raise ValueError(f"{min(missing)} is missing")
    directories = {PurePosixPath(name).parent for name in entry.files}
    caches = {cache for backend in backends for cache in backend.cache_variables.values()}
    contents = {}
    for name, packed in reply.files.items():
        if not _is_place(name, caches, fingerprint) or PurePosixPath(name).parent not in directories:
            raise ValueError(f"{name!r} is no place for a file of this entry")
        contents[name] = _content(name, packed)
        if packed["sha256"] != entry.files.get(name, packed["sha256"]):
            raise ValueError(f"{name} is not what its manifest says")
    return contents


def _is_place(name: str, caches: set[str], fingerprint: str) -> bool:
    """Whether a file may lie there: in a directory of its own, in a compiler's cache or among this entry's objects."""
    parts = PurePosixPath(name).parts
    is_below = is_of_entry(name) and "\0" not in name
    return is_below and (parts[0] in caches or parts[:2] == ("objects", fingerprint))


def _content(name: str, packed: dict[str, Any]) -> bytes:
    try:
        content = base64.b64decode(packed["data"], validate=True)
    except binascii.Error as exc:
        raise ValueError(f"{name} is damaged") from exc
    if hashlib.sha256(content).hexdigest() != packed["sha256"]:
        raise ValueError(f"{name} is damaged")
    return content


def _mended(place: Path, content: bytes, reply: Reply, backends: Sequence[Backend]) -> bytes:
    """A file's content with the paths of this store in it."""
    try:
        for backend in backends:
            content = backend.relocated(place, content)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise HostError(f"host {reply.host} sent what cannot be used: {place.name}: {exc}", "bake again") from exc
    return content


def _write(place: Path, content: bytes) -> None:
    """Publish a file by rename, with the mode that the compilers' own files have."""
    temporary = place.with_name(f".{place.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(place)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as exc:
        raise StoreError(f"cannot write {place}: {exc.strerror or exc}", "free space there") from exc
