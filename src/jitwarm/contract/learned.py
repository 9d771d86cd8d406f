"""What serving asked for and no declaration lists: the content of `jitwarm.lock.toml`, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from jitwarm.errors import SettingsError

VERSION = 1
FILE_NAME = "jitwarm.lock.toml"


@dataclass(frozen=True)
class Seen:
    """Where and how often something compiled after a start; the common part of all entries.

    Attributes:
        label: The specialization for people.
        why: Why it was not warm.
        site: Who launched it, the last time.
        n: How often it compiled: once per process that asked for it.
        hosts: Where.
        targets: For which targets, e.g. `cuda:90`.
        first, last: Days, e.g. `2026-11-21`.
    """

    label: str = ""
    why: str = ""
    site: str = ""
    n: int = 1
    hosts: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    first: str = ""
    last: str = ""


@dataclass(frozen=True)
class LearnedKey(Seen):
    """A key of a declared kernel. `kernel` is its id, `key` the key text."""

    kernel: str = ""
    key: str = ""


@dataclass(frozen=True)
class LearnedFunction(Seen):
    """A specialization of a function that no plugin declares. Without `replay` it can be shown, and not be made again.

    Attributes:
        backend: The backend that compiled it.
        function: `module:qualname`.
        replay: The backend's own text of the specialization.
    """

    backend: str = ""
    function: str = ""
    replay: str = ""


@dataclass(frozen=True)
class Learned:
    """Everything in one file."""

    keys: tuple[LearnedKey, ...] = ()
    functions: tuple[LearnedFunction, ...] = ()

    @classmethod
    def from_toml(cls, table: Mapping[str, Any], place: str) -> Self:
        """The content of a parsed file.

        Args:
            table: What TOML says.
            place: Names the file in an error.

        Raises:
            SettingsError: It is of a newer format, or no such file at all.
        """
        if table.get("version") != VERSION:
            raise SettingsError(
                f"{place} has version {table.get('version')!r}, not {VERSION}", "write it anew: jitwarm learn"
            )
        return cls(
            tuple(_entry(LearnedKey, entry, place) for entry in table.get("key", ())),
            tuple(_entry(LearnedFunction, entry, place) for entry in table.get("function", ())),
        )

    def for_kernel(self, kernel_id: str, target: str) -> list[str]:
        """Key texts of one kernel for one target."""
        return [entry.key for entry in self.keys if entry.kernel == kernel_id and _fits(entry, target)]

    def for_backend(self, backend: str, target: str) -> list[list[str]]:
        """`[function, replay]` of what a backend can make again for one target."""
        found = [entry for entry in self.functions if entry.backend == backend and entry.replay]
        return [[entry.function, entry.replay] for entry in found if _fits(entry, target)]


def _fits(entry: Seen, target: str) -> bool:
    return not entry.targets or target in entry.targets


def _entry(kind: type[Any], given: Any, place: str) -> Any:
    known = {field.name: field.type for field in fields(kind)}
    if not isinstance(given, Mapping) or given.keys() - known.keys():
        odd = ", ".join(sorted(given.keys() - known.keys())) if isinstance(given, Mapping) else repr(given)
        raise SettingsError(f"{place}: {odd} is nothing that an entry has", f"it has {', '.join(known)}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    wrong = [name for name, value in values.items() if type(value) is not type(getattr(kind(), name))]
    if wrong:
        raise SettingsError(
            f"{place}: {wrong[0]} = {given[wrong[0]]!r} is of the wrong type", "write it anew: jitwarm learn"
        )
    return kind(**values)
