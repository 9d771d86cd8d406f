"""Follow the event files of a store: each look reads what was appended since the last one, and no more than it may.

A process of the same lineage belongs together (see `environment.LINEAGE`). One file may hold several starts, for process ids
repeat; each begins with `registered`, and what comes before the first one, or was not written in a server, has no lineage.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from jitwarm.metrics.tally import NEEDED, Event, Tally

MAX_BYTES = 8 << 20  # one look reads so much; more would hold up the server that is asked for its metrics
_CHUNK_BYTES = 1 << 20
_SKEW_S = 60.0  # a file server's clock against ours
_REGISTERED = b'registered"'
_decode = msgspec.json.Decoder(Event).decode


@dataclass
class _File:
    """One event file, read up to `offset`, which is the end of a line.

    Attributes:
        lineage: Of what is being read.
        tallies: By lineage; only of those that are followed.
    """

    path: str
    run: str
    offset: int = 0
    lineage: str = ""
    tallies: dict[str, Tally] = field(default_factory=dict)


class Follower:
    """Reads the event files below a store's `events/`.

    Args:
        directory: `<root>/events`; need not exist.
        run: Only this run; None takes all.
        kin: Only processes whose lineage begins with it; None takes all, those without a lineage as well.
        since: Files that were written last before this wall clock time, seconds, are passed over.

    Not thread-safe.
    """

    def __init__(self, directory: Path, run: str | None = None, kin: str | None = None, since: float = 0.0) -> None:
        self._directory = directory
        self._run = run
        self._kin = kin
        self._since = since - _SKEW_S
        self._files: dict[tuple[int, int], _File] = {}

    @property
    def tallies(self) -> list[tuple[str, Tally]]:
        """(lineage, numbers) of each process that was followed; of a file that is gone as well: counters do not fall."""
        return [found for file in self._files.values() for found in file.tallies.items()]

    def look(self, max_bytes: int = MAX_BYTES) -> bool:
        """Read what was appended, at most `max_bytes`. Never raises for a file's sake.

        Returns:
            Whether all was read that was there.
        """
        for file, size in list(self._grown()):
            while file.offset < size:
                if max_bytes <= 0:
                    return False
                n_bytes = self._read(file, min(_CHUNK_BYTES, max_bytes))
                max_bytes -= n_bytes
                if not n_bytes:
                    break  # the last line is not whole yet
        return True

    def _grown(self) -> Iterator[tuple[_File, int]]:
        """The files that have more than was read, with their sizes; those that are followed already come first."""
        found = list(self._listed())
        found.sort(key=lambda item: not item[0].tallies)
        for file, size in found:
            if size < file.offset:  # begun anew
                file.offset = 0
            if size > file.offset:
                yield file, size

    def _listed(self) -> Iterator[tuple[_File, int]]:
        runs = [self._run] if self._run is not None else [entry.name for entry in _scan(self._directory)]
        for run in runs:
            for entry in _scan(self._directory / run):
                try:
                    status = entry.stat()
                except OSError:
                    continue  # pruned meanwhile
                if not entry.name.endswith(".jsonl") or status.st_mtime < self._since:
                    continue
                key = (status.st_dev, status.st_ino)
                if key not in self._files or self._files[key].path != entry.path:
                    self._forget(key)
                    self._files[key] = _File(entry.path, run)
                yield self._files[key], status.st_size

    def _forget(self, key: tuple[int, int]) -> None:
        """The file is gone and its number was given to another one; what was counted stays."""
        gone = self._files.pop(key, None)
        if gone is not None and gone.tallies:
            self._files[-len(self._files) - 1, key[1]] = gone

    def _read(self, file: _File, n_bytes: int) -> int:
        """Take in whole lines of at most `n_bytes`, but one at least. Returns the number of bytes; 0: no whole line is there."""
        try:
            with open(file.path, "rb") as stream:  # noqa: PTH123 - a text from scandir
                stream.seek(file.offset)
                chunk = stream.read(n_bytes)
                end = chunk.rfind(b"\n") + 1
                if not end:
                    chunk += stream.readline()
                    end = len(chunk) if chunk.endswith(b"\n") else 0
        except OSError:
            return 0
        self._take_in(file, chunk[:end])
        file.offset += end
        return end

    def _take_in(self, file: _File, lines: bytes) -> None:
        for match in NEEDED.finditer(lines):
            is_start = match.group().endswith(_REGISTERED)
            if not is_start and not self._follows(file.lineage):
                continue
            begin, end = lines.rfind(b"\n", 0, match.start()) + 1, lines.index(b"\n", match.end())
            try:
                event = _decode(lines[begin:end])
            except msgspec.MsgspecError:
                continue  # no line of ours
            if is_start:
                file.lineage = event.lineage
            elif self._follows(file.lineage):
                file.tallies.setdefault(file.lineage, Tally()).add(event)

    def _follows(self, lineage: str) -> bool:
        return self._kin is None or f"{lineage}/".startswith(f"{self._kin}/")


def _scan(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []
