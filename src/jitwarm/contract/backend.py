"""The contract of a backend: the adapter of one DSL.

A base class with harmless defaults rather than a bare protocol, so that a third party's backend keeps working when a member
is added. An adapter knows the contract and nothing else of jitwarm: no settings, no store, no events.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jitwarm.contract.target import Target, Toolchain
from jitwarm.errors import TargetError, text_of

_TARGET: ContextVar[Target] = ContextVar("jitwarm_target")


def current_target() -> Target:
    """The target that is compiled for at this moment.

    Raises:
        TargetError: Nothing is being compiled.
    """
    try:
        return _TARGET.get()
    except LookupError:
        raise TargetError(
            "no target here: current_target() answers while a key is compiled or keys are listed"
        ) from None


_ARTIFACTS: ContextVar[Path] = ContextVar("jitwarm_artifacts")


def artifact_dir() -> Path:
    """The directory in the store for the files of the key that is being compiled. It is made if it is not there.

    For a compiler that no backend knows: what `compile` leaves here is checksummed, shipped and verified with the key, and
    is here again in each later process that loads it. If a file is damaged, all are removed: what is here is whole.

    Raises:
        TargetError: No key is being compiled.
        OSError: The store cannot be written.
    """
    try:
        directory = _ARTIFACTS.get()
    except LookupError:
        raise TargetError("no key here: artifact_dir() answers while a key is compiled") from None
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


class ArtifactScope(AbstractContextManager[None]):
    """While entered, `artifact_dir()` answers `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        self._token = _ARTIFACTS.set(self._directory)

    def __exit__(self, *exc: object) -> None:
        _ARTIFACTS.reset(self._token)


def is_compiling() -> bool:
    """Whether jitwarm itself, in this thread, compiles a key or lists keys."""
    return _TARGET.get(None) is not None


class TargetScope(AbstractContextManager[None]):
    """While entered, `current_target()` answers `target`."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def __enter__(self) -> None:
        self._token = _TARGET.set(self._target)

    def __exit__(self, *exc: object) -> None:
        _TARGET.reset(self._token)


@dataclass
class CompileCount:
    """What a compiler did while it was watched.

    Attributes:
        n_compiled: Real compiler runs; a disk hit is none.
        files: The artifacts that were written or found, absolute paths, in order, without repeats.
    """

    n_compiled: int = 0
    files: dict[Path, None] = field(default_factory=dict)

    def add_compile(self) -> None:
        """Remember one more compiler run."""
        self.n_compiled += 1

    def add_files(self, paths: Iterator[Path] | Sequence[Path]) -> None:
        """Remember more artifacts."""
        self.files.update(dict.fromkeys(paths))


@dataclass(frozen=True)
class Seen:
    """Something that a compiler did while it was watched.

    Attributes:
        backend: The backend's name.
        what: `"compile"`, `"tuning"` (configurations were timed), `"reload"` (no compile: it was on disk, yet not in this
            process), or `"module"` (GPU code was loaded at a first launch).
        function: `module:qualname` of what was compiled; `?:name` where its module is not known.
        specialization: What it was compiled for: parameter or argument -> text.
        seconds: How long it took.
        handle: The compiler's own function object, by which a backend knows its kernel; None where there is none.
        replay: A text from which `Backend.learned` can make this specialization again; empty where that is not possible.
    """

    backend: str
    what: str
    function: str
    specialization: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    handle: Any = None
    replay: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that `jitwarm doctor` looked at.

    Attributes:
        check: What was looked at, e.g. `nvcc`.
        level: `"ok"`, `"warning"` or `"error"`.
        detail: What was seen.
        fix: What to do about it; empty when there is nothing to do.
    """

    check: str
    level: str
    detail: str
    fix: str = ""


class Backend:
    """The adapter of one DSL. Constructing one, and asking `missing()`, imports no compiler.

    Attributes:
        name: Shown in reports, e.g. `"triton"`.
        cache_variables: Environment variables that move the compiler's own disk cache, with the directory under the
            store's root that each should name.
        typical_compile_s: How long one of its kernels takes, roughly: the longest are begun first.
        modules: What is imported once for all compile processes of a plugin with kernels of this backend. Importing them must
            start no thread.
    """

    name: str = ""
    cache_variables: dict[str, str] = {}  # noqa: RUF012 - overridden per class, never mutated
    modules: tuple[str, ...] = ()
    typical_compile_s: float = 1.0

    def missing(self) -> str:
        """Why this backend cannot work here (a package is not installed), with the remedy; empty when it can."""
        return ""

    def owns(self, kernel: object) -> bool:
        """Whether `kernel` is an object of this adapter."""
        del kernel
        return False

    def toolchain(self) -> Toolchain:
        """The versions that make artifacts exchangeable. Imports no compiler."""
        return Toolchain(self.name, ())

    def unsupported(self, target: Target) -> str:
        """Why this backend can never build for `target`; empty when it can. Imports no compiler."""
        del target
        return ""

    def missing_toolchain(self, target: Target) -> str:
        """Which program a build for `target` needs and does not find; empty when all is there. Imports no compiler.

        Asked when a compile has failed, since what is on disk already can be loaded without it.
        """
        del target
        return ""

    def device_target(self) -> Target | None:
        """The target of this process's GPU, or None where there is none. May import the compiler."""
        return None

    def pin(self, target: Target) -> AbstractContextManager[None]:
        """While entered, the compiler builds for `target`. Raises `Unresolved` where it cannot."""
        del target
        return nullcontext()

    def count_compiles(self) -> AbstractContextManager[CompileCount]:
        """While entered, count this backend's compiles and collect its artifacts. Chains what listens already."""
        return nullcontext(CompileCount())

    def exchange(self, directory: Path, target: Target) -> AbstractContextManager[None]:
        """For a compiler without a disk cache: while entered, compiles are kept in `directory` or taken from it.

        A directory that does not fit what is asked is a miss. Must not raise for a damaged one.
        """
        del directory, target
        return nullcontext()

    def explain(self, exc: Exception) -> str:
        """One of the compiler's errors, for a report: what it says, without colours, dumps of source or temporary paths."""
        return text_of(exc)

    def is_warm(self, kernel: Any, key: Any) -> bool:
        """Whether this process would run `key` without compiling or reading a file. Called with the target pinned."""
        del kernel, key
        return False

    def watch(self, see: Callable[[Seen], None]) -> AbstractContextManager[None]:
        """While entered, call `see` for each compile, reload, tuning and module load, in the thread in which it happens.

        Must cost nothing where nothing is compiled, chain what listens already, and let through what `see` raises. May be
        entered while the compiler is not imported, and then imports it or watches nothing.
        """
        del see
        return nullcontext()

    def compiles(self, kernel: Any, handle: Any) -> bool:
        """Whether `handle`, of something seen, is the function that `kernel` compiles."""
        del kernel, handle
        return False

    def specialization(self, kernel: Any, key: Any) -> Mapping[str, str]:
        """What `key` is compiled for, in the words of `Seen.specialization`; empty where that cannot be said."""
        del kernel, key
        return {}

    def begin_use(self, kernels: Iterable[Any]) -> None:
        """From now on tell keys that are used from those that are not; see `used`. Costs later uses nothing."""
        del kernels

    def used(self, kernel: Any, keys: Sequence[Any]) -> list[bool] | None:
        """Which of these warm keys were used since `begin_use`; None where that cannot be seen.

        Asked again and again while a server serves: the second time for the same keys it must take next to nothing.
        """
        del kernel, keys
        return None

    def entry_root(self, file: Path) -> Path:
        """The file or directory to remove so that the compiler no longer finds the entry which `file` belongs to."""
        return file.parent

    def relocate(self, root: Path) -> None:
        """Mend this backend's entries under `root` after the store was moved there."""
        del root

    def relocated(self, file: Path, content: bytes) -> bytes:
        """What a file of an entry that was built elsewhere must hold to lie at `file`. Imports no compiler.

        Raises:
            ValueError: The content is damaged.
        """
        del file
        return content

    def examine(self) -> list[Finding]:
        """What `jitwarm doctor` should say of this backend. Must not raise."""
        missing = self.missing()
        if missing:
            return [Finding(self.name, "warning", "not installed", missing)]
        return [Finding(self.name, "ok", self.toolchain().full_text())]
