"""What is asked of one plugin in a process of its own, and what is found there. Plain data, which crosses as JSON."""

from dataclasses import dataclass, field
from typing import Any

from jitwarm.testing.launches import Touch


@dataclass(frozen=True)
class Question:
    """What to look at.

    Attributes:
        plugin: Its entry point's name.
        target: e.g. `cuda:90`.
        config: A `WarmupConfig` as plain data.
        needs: Other plugins that it needs, e.g. the one of its backend.
        kernels: Glob over kernel ids.
        timeout_s: How long the plugin may take for its import, for its kernels, and for the keys of one.
        n_samples: Points of each traced domain at which `dispatch` is asked.
        preload: Backends whose compilers are imported before the plugin, as in a server that has used them.
    """

    plugin: str
    target: str
    config: dict[str, Any]
    needs: tuple[str, ...] = ()
    kernels: str = "*"
    timeout_s: float = 120.0
    n_samples: int = 0
    preload: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order(Question):
    """What to build.

    Attributes:
        root: The store.
        isolate: Build in compile processes. Otherwise in the process that is asked, where launches are seen.
        max_keys: How many keys may be built; None is all.
        leave_out: `(kernel id, key text)` of keys that would harm their process.
    """

    root: str = ""
    isolate: bool = True
    max_keys: int | None = None
    leave_out: tuple[tuple[str, str], ...] = ()


@dataclass
class KernelFacts:
    """One kernel.

    Attributes:
        id: Kernel id.
        backend: Its backend's name, or None.
        keys: Texts of the keys, in the order in which they were listed.
        again: The same, of a second call.
        problem: `(outcome, error)` where the keys could not be listed.
        unencodable: Why keys have no text or no hash.
        undecodable: Why texts do not come back as the same key.
        n_by_hand: Keys that no trace found.
        n_traced: Keys that a trace found.
        disagreements: Where the author's function and tracing differ.
        not_taken: What `dispatch` does not take, or maps elsewhere, of what was traced.
    """

    id: str
    backend: str | None = None
    keys: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    problem: tuple[str, str] | None = None
    unencodable: list[str] = field(default_factory=list)
    undecodable: list[str] = field(default_factory=list)
    n_by_hand: int = 0
    n_traced: int = 0
    disagreements: list[str] = field(default_factory=list)
    not_taken: list[str] = field(default_factory=list)


@dataclass
class Look:
    """One plugin, as one process saw it.

    Attributes:
        is_installed: Whether its entry point was found.
        refused: Why it was refused; empty if it was not.
        gpu_stacks: Which of these its import, and the list of its backends, imported.
        duplicates: Names that more than one of its kernels has.
        threads: Names of Python threads that it started.
        n_native_threads: Other threads that came with it.
        kernels: Those that match.
        touches: Launches, and uses of a GPU.
    """

    is_installed: bool = False
    refused: str = ""
    gpu_stacks: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)
    n_native_threads: int = 0
    kernels: list[KernelFacts] = field(default_factory=list)
    touches: list[Touch] = field(default_factory=list)


@dataclass(frozen=True)
class BuiltKey:
    """One key of a run, and how it ended."""

    kernel: str
    key: str
    label: str
    outcome: str
    error: str = ""

    def __str__(self) -> str:
        reason = f": {self.error}" if self.error else ""
        return f"{self.kernel} [{self.label}] {self.outcome}{reason}"


@dataclass
class Built:
    """One run.

    Attributes:
        keys: Every key.
        compiled: `(kernel id, key text)` of those for which a compiler ran.
        quarantined: The same of those that hung or killed their compiler.
        local: Why kernels could not be built in compile processes, by kernel id.
        changes: What compiles changed in the process around them, one sentence each.
        touches: Launches, and uses of a GPU, in this process.
        unavailable: Why no compile process could be started; empty if one was.
    """

    keys: list[BuiltKey] = field(default_factory=list)
    compiled: list[tuple[str, str]] = field(default_factory=list)
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    local: dict[str, str] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    touches: list[Touch] = field(default_factory=list)
    unavailable: str = ""
