"""A job: one key to build in another process or on another host, and what became of it. All are their JSON."""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Origin:
    """What a key's artifacts are built from. Where it differs, those of one host are of no use on another.

    Attributes:
        toolchain: Versions, one line.
        source: Digest of the code of the kernel's package.
    """

    toolchain: str
    source: str

    def difference(self, other: Self) -> list[tuple[str, str, str]]:
        """What differs in the toolchain, as (component, ours, theirs)."""
        ours, theirs = _versions(self.toolchain), _versions(other.toolchain)
        pairs = [(name, ours.get(name, "none"), theirs.get(name, "none")) for name in {**ours, **theirs}]
        return [pair for pair in pairs if pair[1] != pair[2]]


def _versions(toolchain: str) -> dict[str, str]:
    parts = [part.rpartition(" ") for part in re.split("[;,] ", toolchain) if part]
    return {name: version for name, _, version in parts}


@dataclass(frozen=True)
class Job:
    """One key to build.

    Attributes:
        plugin: The entry point that yields the kernel.
        backend_plugin: Another one, which yields its backend; empty for a built-in backend, the plugin's own, or none.
        kernel: Kernel id.
        key: Key text.
        target: e.g. `cuda:90`.
        config: The fields of the `WarmupConfig`.
        root: The store.
        run: Names the run's event log.
        distribution: Name and version of the package that declares the kernel.
        import_path: `module:attribute` of the kernel, where no plugin yields it.
        origin: What the sender's artifacts are built from, where the sender is on another host: a process in which it
            differs builds nothing.
        places_caches: Whether the compilers' caches are below the root, also where a variable does not say so yet.
    """

    plugin: str
    backend_plugin: str
    kernel: str
    key: str
    target: str
    config: dict[str, Any]
    root: str
    run: str
    distribution: str = ""
    import_path: str = ""
    origin: Origin | None = None
    places_caches: bool = False

    @property
    def setup(self) -> str:
        """What a process has imported that can build it: jobs that agree in this can share one."""
        return repr((self.plugin, self.backend_plugin, self.target, self.config))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """The job that `to_json` wrote."""
        origin = record.get("origin")
        return cls(**{**record, "origin": Origin(**origin) if origin else None})


@dataclass(frozen=True)
class Answer:
    """What became of a job.

    Attributes:
        status: `"built"`, `"local"` (the process cannot make this kernel: compile it where it was declared), `"died"` (it came to
            the end of its memory, and is of no more use), or the outcome of a failure.
        n_compiles: Real compiler runs.
        outcome: Of a key that was built, what the kernel itself said: `"compiled"` or `"loaded"`; None where it said nothing.
        seconds: How long it took.
        error: Why it failed, or why it is local.
        is_last: Whether the process that answers takes no further job.
    """

    status: str
    n_compiles: int = 0
    seconds: float = 0.0
    error: str = ""
    is_last: bool = False
    outcome: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: Any) -> Self:
        """The answer that `to_json` wrote.

        Raises:
            TypeError: It is none.
        """
        return cls(**record)


@dataclass(frozen=True)
class Order:
    """A job for another host, and what its compile process needs to know there.

    Attributes:
        job: Its `root` is the host's own to choose.
        fingerprint: Names the entry that is asked for.
        backend: Whose compiler it takes; None for a kernel that no adapter knows.
        cache_variables: Variables that move the compilers' disk caches, with a directory below the root for each.
        key_timeout_s: Longest that the key may take.
    """

    job: Job
    fingerprint: str
    backend: str | None
    cache_variables: dict[str, str]
    key_timeout_s: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """The order that `to_json` wrote."""
        return cls(**{**record, "job": Job.from_json(record["job"])})


@dataclass(frozen=True)
class Reply:
    """What a host sends back.

    Attributes:
        host: Its name.
        answer: What became of the job; beside the statuses of a compile process also `"timed_out"` and `"died"`.
        hint: What to do about a failure.
        entry: The manifest of what was built.
        files: The built entry: path relative to the root -> `sha256` and `data`, base64.
    """

    host: str
    answer: Answer
    hint: str = ""
    entry: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: Any) -> Self:
        """The reply that `to_json` wrote.

        Raises:
            TypeError, KeyError: It is none.
        """
        return cls(**{**record, "answer": Answer.from_json(record["answer"])})
