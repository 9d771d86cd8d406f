"""Writes a report's file: whole or not at all."""

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from jitwarm.errors import UsageError


def write(path: Path, text: str) -> None:
    """Write `text` beside `path`, then rename: who looks meanwhile sees the old file. What is no file is written to as it is.

    Raises:
        UsageError: It cannot be written; nothing is left behind.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
        if path.is_relative_to("/dev") or (path.exists() and not path.is_file()):
            with path.open(
                "a", encoding="utf-8"
            ) as stream:  # /dev/stdout, or a pipe: a rename would put a file in its place
                stream.write(text)
        else:
            _replace(path.resolve(), text)
    except OSError as exc:
        raise UsageError(
            f"{path} cannot be written: {exc.strerror or exc}", "name a file in a directory that is there and writable"
        ) from exc


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
