"""The model of a start: what its processes planned, built, loaded and met later, on one time line. Plain data."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jitwarm.contract.kernel import Outcome
from jitwarm.engine.elsewhere import OVER
from jitwarm.engine.report import Report, Row

WARM = frozenset(outcome.value for outcome in Outcome if outcome.is_warm)
# What the ranks' outcomes of one key come to: the worst. None is a key that was planned and not reached.
WORST_FIRST: tuple[str | None, ...] = (
    "failed", "timed_out", "unresolved", None, "skipped", "compiled", "loaded", "already_warm",
)  # fmt: skip

# Phases in which a server waits for us.
_ADDED = frozenset({"early load", "plan", "warmup"})


@dataclass
class Span:
    """Something that took a while: a phase, a load, a build.

    Attributes:
        start_s: Seconds since the start's first event.
        end_s: The same; of what never ended, the last that is known of its process.
        name: Of a phase; else the kernel.
        key: `(kernel, digest)` where it is a key's.
        outcome: How it ended; empty where nobody said.
    """

    start_s: float
    end_s: float
    name: str
    key: tuple[str, str] | None = None
    outcome: str = ""

    @property
    def seconds(self) -> float:
        """From begin to end."""
        return self.end_s - self.start_s


@dataclass
class Process:
    """A process that planned keys: a rank of a server, or a command.

    Attributes:
        id: `host:pid`.
        rank: As the server says; None outside of one.
        role: What it is beside those that serve; `early` builds while they load.
        report: What this process alone found and did.
        phases: `plan`, `warmup` and so on.
        loads: Each key, from when it was begun in this process until it ended.
        is_complete: Whether the warm-up ended; a killed process did not come that far, a living one may not have yet.
    """

    id: str
    host: str
    pid: int
    rank: int | None = None
    role: str = ""
    report: Report = field(default_factory=Report)
    phases: list[Span] = field(default_factory=list)
    loads: list[Span] = field(default_factory=list)
    start_s: float = 0.0
    end_s: float = 0.0
    is_complete: bool = False

    @property
    def name(self) -> str:
        """For people."""
        kind = "early builder" if self.role else "process" if self.rank is None else f"rank {self.rank}"
        return f"{kind} ({self.id})"


@dataclass
class Worker:
    """What builds keys for a process: a compile process, or a host of a cluster.

    Attributes:
        id: `host:pid`, or the host's name.
        parent: The `Process.id` that asked for it; empty where no log says so.
        backend: Whose compiler it has imported.
        builds: What it built, and what it tried to.
        why_ended: Why it was replaced or killed; empty for one that ended with the run.
    """

    id: str
    parent: str = ""
    backend: str = ""
    is_host: bool = False
    builds: list[Span] = field(default_factory=list)
    start_s: float = 0.0
    end_s: float = 0.0
    why_ended: str = ""

    @property
    def busy_s(self) -> float:
        """Seconds in which it built."""
        return sum(span.end_s - span.start_s for span in self.builds)


@dataclass
class Key:
    """One key of the plan, all ranks together.

    Attributes:
        digest: Names it, with the kernel.
        text: Canonical key text.
        label: For people.
        rows: By `Process.id`, for those that planned it.
        worker: Who built it, if a log says so.
        regions: Which inputs reach it; None where that was not noted, empty for a key that was listed by hand.
        witness: One input that reaches it.
        n_regions: All that there are; `regions` may be the first ones.
        is_used: Whether it was seen in use.
    """

    kernel: str
    digest: str
    text: str
    label: str
    rows: dict[str, Row] = field(default_factory=dict)
    worker: str = ""
    regions: list[str] | None = None
    witness: dict[str, str] = field(default_factory=dict)
    n_regions: int = 0
    is_used: bool = False

    @cached_property
    def outcome(self) -> str | None:
        """The worst of the ranks'; None where one did not come to it. Asked for when the rows are complete."""
        return min((row.outcome for row in self.rows.values()), key=WORST_FIRST.index)

    @property
    def is_warm(self) -> bool:
        """Whether it is warm in each rank that planned it."""
        return self.outcome in WARM

    @cached_property
    def seconds(self) -> float:
        """The longest that it took in a rank."""
        return max(row.seconds for row in self.rows.values())

    @property
    def error(self) -> str | None:
        """What the rank with the worst outcome says."""
        return next((row.error for row in self.rows.values() if row.outcome == self.outcome and row.error), None)


@dataclass
class Unlisted:
    """A kernel whose keys could not be listed."""

    kernel: str
    outcome: str
    error: str

    @property
    def is_cold(self) -> bool:
        """Whether it may have keys: one that is not for this rank, or that a user switched off, has none."""
        return self.outcome != Outcome.SKIPPED.value


@dataclass
class Unexpected:
    """A compile after the warm-up, all its occurrences and ranks together.

    Attributes:
        during: In what it happened, before anything was served; empty for one that a request waited for.
        what: `compile` or `tuning`.
        function: `module:qualname` of what was compiled.
        kernel: Kernel id; empty for a function that no plugin declares.
        label: The key, or the specialization, for people.
        nearest: The nearest expected key, for people; empty if there is none.
        differences: From that one.
        line: What to add or to do.
        site: The first caller that was seen.
        seconds: Lost, summed over occurrences.
        first_s: Seconds from the start's first event to the first occurrence.
        processes: `Process.id` of each that met it.
    """

    backend: str
    what: str
    function: str
    kernel: str
    digest: str
    key: str
    label: str
    nearest: str
    differences: list[str]
    why: str
    line: str
    site: str
    first_s: float
    during: str = ""
    seconds: float = 0.0
    n: int = 0
    processes: list[str] = field(default_factory=list)
    at_s: list[tuple[str, float]] = field(default_factory=list)

    @property
    def plugin(self) -> str:
        """Whose kernel it is; empty for nobody's."""
        return plugin_of(self.kernel)


@dataclass
class ExecutionRun:
    """The execution run of one start, all ranks together: that of the rank which came off worst.

    Attributes:
        status: `done`, `failed` or `not_run`.
        by: `jitwarm`, or `vllm` where its own warm-up executes; empty if nobody's.
        n: Requests; steps where it was vLLM's.
        why: Why it failed, or why there was none.
    """

    status: str
    by: str = ""
    n: int = 0
    seconds: float = 0.0
    why: str = ""


@dataclass
class Late:
    """What was on disk and not in a process's memory, or GPU code that was loaded at the first launch; all times together."""

    backend: str
    function: str
    kernel: str
    label: str
    site: str
    seconds: float = 0.0
    n: int = 0


@dataclass
class Incident:
    """Something else that a reader should know of: a quarantine, a lock that was not free, hosts that are gone."""

    at_s: float
    process: str
    event: str
    text: str


@dataclass
class Start:
    """One start, all of its processes together.

    Attributes:
        name: The run's.
        source: Where its log lies.
        processes: Those that made keys warm for themselves.
        builders: Those that built while these loaded; a key is theirs to try, and not theirs to miss.
        started_ns: Wall clock of the first event.
        keys: In the order of the plan.
        undeclared: What compiled after our warm-up and before anything was served.
        execution: None where no account was kept.
        watched_by: Who was armed after the warm-up: `jitwarm`, `vllm`; empty if nobody was.
        uses_unknown: Kernels of which nobody can see whether a key is used.
        versions, environment, config: Of the first process; ranks of one start agree in what decides.
        n_unreadable: Lines of the logs that are no event.
        n_foreign: Events of another version.
    """

    name: str
    source: str
    started_ns: int = 0
    processes: list[Process] = field(default_factory=list)
    builders: list[Process] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    keys: dict[tuple[str, str], Key] = field(default_factory=dict)
    unlisted: list[Unlisted] = field(default_factory=list)
    unexpected: list[Unexpected] = field(default_factory=list)
    undeclared: list[Unexpected] = field(default_factory=list)
    execution: ExecutionRun | None = None
    reloads: list[Late] = field(default_factory=list)
    modules: list[Late] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    watched_by: dict[str, str] = field(default_factory=dict)
    uses_unknown: set[str] = field(default_factory=set)
    versions: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    n_unreadable: int = 0
    n_foreign: int = 0

    @property
    def target(self) -> str:
        """What was built for."""
        return ", ".join(dict.fromkeys(process.report.target for process in self.processes if process.report.target))

    @property
    def on_device(self) -> bool:
        """Whether keys were also loaded on a GPU."""
        return any(process.report.on_device for process in self.processes)

    @property
    def is_complete(self) -> bool:
        """Whether the warm-up of each process ended."""
        return all(process.is_complete for process in self.processes)

    @property
    def seconds(self) -> float:
        """From the first process's begin to the last one's end."""
        return max((p.end_s for p in self.processes), default=0.0) - min(
            (p.start_s for p in self.processes), default=0.0
        )

    @property
    def n_compiles(self) -> int:
        """Compiler runs that were counted, without those after the warm-up."""
        return sum(process.report.n_compiles for process in [*self.processes, *self.builders])

    @property
    def added_s(self) -> float:
        """Seconds by which the start took longer for the warm-up: the longest of the ranks'."""
        return max((sum(span.seconds for span in p.phases if span.name in _ADDED) for p in self.processes), default=0.0)

    @property
    def hidden_s(self) -> float:
        """Seconds of compiling that were over before the first rank began to warm up."""
        begun = [span.start_s for process in self.processes for span in process.phases if span.name == "plan"]
        builders = {process.id for process in self.builders}
        builds = [span for worker in self.workers if worker.parent in builders for span in worker.builds]
        return sum(span.seconds for span in builds if not begun or span.end_s <= min(begun))

    @property
    def outcomes(self) -> dict[str, int]:
        """How many keys ended in each way; what did not occur is left out."""
        counts = Counter(key.outcome for key in self.keys.values())
        found = {outcome.value: counts[outcome.value] for outcome in Outcome if counts[outcome.value]}
        return {**found, "not_reached": counts[None]} if counts[None] else found

    @property
    def is_watched(self) -> bool:
        """Whether uses of keys and compiles after the warm-up were looked for by us."""
        return "jitwarm" in self.watched_by

    @property
    def cold(self) -> list[Key]:
        """Keys that are not warm, and should be."""
        return [key for key in self.keys.values() if is_cold(key.outcome, key.error)]

    @property
    def is_warm(self) -> bool:
        """Whether there are keys, and none is cold."""
        return bool(self.keys) and not self.cold and not any(unlisted.is_cold for unlisted in self.unlisted)

    @property
    def never_used(self) -> list[Key] | None:
        """Warm keys that nothing asked for, the dearest first; None where that cannot be known."""
        if not self.is_watched:
            return None
        idle = [
            key for key in self.keys.values() if key.is_warm and not key.is_used and key.kernel not in self.uses_unknown
        ]
        return sorted(idle, key=lambda key: -key.seconds)

    @property
    def seconds_lost(self) -> float:
        """To compiles after the warm-up."""
        return sum(unexpected.seconds for unexpected in self.unexpected)

    def kernels(self) -> Iterable[tuple[str, str | None, str, list[str]]]:
        """Each planned kernel once: id, backend, distribution, notes of all ranks."""
        found: dict[str, tuple[str | None, str, list[str]]] = {}
        for process in self.processes:
            for kernel in process.report.kernels.values():
                _, _, notes = found.setdefault(kernel.id, (kernel.backend, kernel.distribution, []))
                notes += [note for note in kernel.notes if note not in notes]
        return [(name, *rest) for name, rest in found.items()]

    def repro(self, key: Key) -> str:
        """The command that builds a key alone; empty where the compiler was not at fault."""
        for process in self.processes:
            if (row := key.rows.get(process.id)) and (command := process.report.repro(row)):
                return command
        return ""


def is_cold(outcome: str | None, error: str | None, *, strict: bool = False) -> bool:
    """Whether a key with this outcome would still be compiled by a request.

    One that was skipped because nothing will ask for it (another rank's, a configuration that the tuner skips, too) would not;
    one that a budget left out would.
    """
    if outcome in WARM:
        return False
    return outcome != Outcome.SKIPPED.value or strict or error in OVER


def plugin_of(kernel: str) -> str:
    """The plugin of a kernel id."""
    return kernel.partition(":")[0]
