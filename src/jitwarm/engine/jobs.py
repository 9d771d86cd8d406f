"""A job: one key to build in another process, and what became of it. Both are their JSON."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Job:
    """One key to build.

    Attributes:
        plugin: The entry point that yields the kernel.
        backend_plugin: The one that yields its backend; empty for a built-in backend, or none.
        kernel: Kernel id.
        key: Key text.
        target: e.g. `cuda:90`.
        config: The fields of the `WarmupConfig`.
        root: The store.
        run: Names the run's event log.
        distribution: Name and version of the package that declares the kernel.
        import_path: `module:attribute` of the kernel, where no plugin yields it.
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

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """The job that `to_json` wrote."""
        return cls(**record)


@dataclass(frozen=True)
class Answer:
    """What became of a job.

    Attributes:
        status: `"built"`, `"local"` (the process cannot make this kernel: compile it where it was declared), `"died"` (it came to
            the end of its memory, and is of no more use), or the outcome of a failure.
        n_compiles: Real compiler runs.
        seconds: How long it took.
        error: Why it failed, or why it is local.
        is_last: Whether the process that answers takes no further job.
    """

    status: str
    n_compiles: int = 0
    seconds: float = 0.0
    error: str = ""
    is_last: bool = False

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
