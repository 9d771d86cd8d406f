"""Getting one artifact that was built elsewhere, for a kernel whose `compile` would rather load than build."""

import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from jitwarm.errors import FetchError

_CHUNK_BYTES = 1 << 20


def fetch(source: str, to: Path, *, sha256: str, timeout_s: float = 30.0) -> Path:
    """Put a file that was built elsewhere at `to`, whole or not at all.

    Args:
        source: A path, or a URL that `urllib` opens.
        to: Where to, e.g. in `jitwarm.artifact_dir()`. What is there already is replaced, unless it has this digest.
        sha256: Of the content, 64 hexadecimal digits. It is code: take it from where you take the kernel's source.
        timeout_s: Longest silence of the other side.

    Returns:
        `to`.

    Raises:
        FetchError: It is not there, cannot be reached or written, or is not what was asked for. Nothing is left behind.
    """
    try:
        if to.is_file() and _digest(to) == sha256.lower():
            return to
        with _opened(source, timeout_s) as content:
            _publish(content, to, sha256.lower())
    except (OSError, ValueError) as exc:
        raise FetchError(f"{source} cannot be fetched: {exc}", "compile it, or mend the place", str(to)) from exc
    return to


def _opened(source: str, timeout_s: float) -> IO[bytes]:
    if "://" not in source:
        return Path(source).open("rb")
    try:
        return urllib.request.urlopen(source, timeout=timeout_s)  # type: ignore[no-any-return]  # noqa: S310 - the digest decides
    except urllib.error.HTTPError as exc:
        exc.close()  # it holds the connection
        raise


def _publish(content: IO[bytes], to: Path, sha256: str) -> None:
    fd, name = tempfile.mkstemp(dir=to.parent, prefix=f".{to.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as file:
            shutil.copyfileobj(content, file, _CHUNK_BYTES)
        _require(temporary, sha256)
        temporary.replace(to)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _require(file: Path, sha256: str) -> None:
    if (found := _digest(file)) != sha256:
        raise ValueError(f"it is not what was asked for: its SHA-256 is {found}, not {sha256}")


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
