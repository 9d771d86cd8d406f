"""The built-in policy: make one key warm by the kernel's own `compile`, watched, locked and recorded."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from jitwarm.contract.backend import ArtifactScope, Backend, CompileCount, TargetScope
from jitwarm.contract.config import WarmupConfig
from jitwarm.contract.kernel import Kernel, Outcome, RegisteredKernel
from jitwarm.contract.keys import encode_key
from jitwarm.contract.target import Target
from jitwarm.deadlines import raise_if_shutting_down
from jitwarm.engine.elsewhere import Build, Built, Elsewhere, Isolation
from jitwarm.engine.jobs import Origin
from jitwarm.engine.source import source_digest
from jitwarm.errors import (
    CompileError,
    ContractError,
    JitwarmError,
    LockTimeoutError,
    Skipped,
    ToolchainError,
    Unresolved,
    UnsupportedTargetError,
    text_of,
)
from jitwarm.hookspecs import hookimpl
from jitwarm.store import Entry, Store
from jitwarm.store.store import remove

# What an outcome that a kernel's `compile` answers is raised as, where the key is not warm.
_COLD: dict[Outcome, type[JitwarmError]] = {Outcome.SKIPPED: Skipped, Outcome.UNRESOLVED: Unresolved}
_ACTIVE: ContextVar["BuiltinPolicy"] = ContextVar("jitwarm_builtin_policy")


class BuiltinPolicy:
    """The implementations that are asked last; each calls the kernel's own member.

    Args:
        backends: All that are known, available or not.
        emit: Receives a `compile` event for each key that really was compiled in this process.
        lock_timeout_s: Longest wait for another process that builds the same key; then it is built here, too. None takes no
            lock: the process that sent the job holds it.
        isolation: Builds what is not in the store; then this process only loads. None compiles here.

    Attributes:
        elsewhere: What is built in other processes, and the budget.
        before_load: Called with each entry of the store that is about to be loaded; may raise `Skipped`.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        emit: Callable[..., None],
        lock_timeout_s: float | None,
        isolation: Isolation | None = None,
    ) -> None:
        self._backends = backends
        self._opened: Store | None = None
        self._emit = emit
        self._lock_timeout_s = lock_timeout_s
        self.elsewhere = Elsewhere(isolation, emit)
        self.before_load: Callable[[Entry], None] = lambda _: None
        self._records: dict[int, RegisteredKernel] = {}
        self._ahead: dict[str, Built | Exception | None] = {}

    def know(self, kernels: Iterable[RegisteredKernel]) -> None:
        """Remember where kernels come from."""
        self._records.update({id(kernel.kernel): kernel for kernel in kernels})

    def use(self, store: Store) -> None:
        """Put artifacts and manifests here; needed before anything is compiled, not before keys are listed."""
        self._opened = store

    @hookimpl(trylast=True)
    def jitwarm_compile_key(self, kernel: Kernel) -> type:
        """The kernel's own class."""
        return kernel.CompileKey

    @hookimpl(trylast=True)
    def jitwarm_dispatch(self, kernel: Kernel, arguments: Mapping[str, Any]) -> Any:
        """The kernel's own dispatch."""
        return kernel.dispatch(**arguments)

    @hookimpl(trylast=True)
    def jitwarm_warmup_keys(self, kernel: Kernel, config: WarmupConfig) -> Sequence[Any]:
        """The kernel's own list."""
        return list(kernel.get_warmup_keys(config))

    @hookimpl(trylast=True)
    def jitwarm_compile(self, kernel: Kernel, key: Any, target: Target) -> Outcome:
        """The kernel's own compile; see `compile`."""
        return self.compile(kernel, key, target)

    @property
    def patience_s(self) -> float:
        """Longest wait for another process from now on: the lock's timeout, or what is left of the budget."""
        timeout_s, ends_at = self._lock_timeout_s or 0.0, self.elsewhere.ends_at
        return timeout_s if ends_at is None else min(timeout_s, max(ends_at - time.monotonic(), 0.0))

    @contextmanager
    def active(self) -> Iterator[None]:
        """While entered, `default_compile` and `default_warmup_keys` answer through this object."""
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)

    @contextmanager
    def pinned(self, kernel: Kernel, target: Target) -> Iterator[Sequence[Backend]]:
        """While entered, the backends that `kernel` may use build for `target`. Yields them.

        Raises:
            ToolchainError: The kernel's backend is not installed.
            UnsupportedTargetError: The kernel's backend cannot build for `target`.
        """
        involved = self._involved(kernel, target)
        with ExitStack() as stack:
            stack.enter_context(TargetScope(target))
            is_sure = any(backend.owns(kernel) for backend in involved)
            pinned = [backend for backend in involved if _pin(stack, backend, target, is_sure=is_sure)]
            yield pinned

    def compile(self, kernel: Kernel, key: Any, target: Target) -> Outcome:
        """Make `key` warm in this process: load what is in the store, else have it built and load that, else build it here.

        Damaged entries are dropped first, so that the compiler misses rather than loads them.
        """
        with self.pinned(kernel, target) as involved:
            if any(backend.owns(kernel) and backend.is_warm(kernel, key) for backend in involved):
                return Outcome.ALREADY_WARM
            job = self._job(kernel, key, target, involved)
            with self._locked(job.fingerprint) as lock:
                known = self._intact(job)
                built = self._built(job, known, lock)
                if built is not None and known is None:
                    known = self._store.find(job.fingerprint)
                if known is not None:
                    self.before_load(known)
                answer, n_compiled = self._build_here(job, known)
        if n_compiled and (built is not None or known is not None):
            self._emit("load_recompiled", kernel=job.record.id, key=job.text, n=n_compiled)
            self.elsewhere.make_local(job.record)
        return _outcome(answer, n_compiled, built)

    def job(self, kernel: Kernel, key: Any, target: Target) -> Any:
        """What `build_ahead` needs to build `key`; None where it would be built in this process.

        Raises:
            Exception: What `compile` would raise before it compiles.
        """
        with self.pinned(kernel, target) as involved:
            is_local = self.elsewhere.is_local(self._records[id(kernel)])
            return None if is_local else self._job(kernel, key, target, involved)

    def build_ahead(self, job: Any) -> bool:
        """Build a job's key elsewhere if the store lacks it, and remember how that ended for `compile`. Never raises.

        Called from threads, several at once.

        Returns:
            False if another process is building this key now.
        """
        try:
            with self._store.lock(job.fingerprint, 0.0) as lock:
                if self._intact(job) is None:
                    self._ahead[job.fingerprint] = self.elsewhere.build(job, self._store, lock)
        except LockTimeoutError:
            return False
        except Exception as exc:  # noqa: BLE001 - it becomes this key's row when its turn comes
            self._ahead[job.fingerprint] = exc
        return True

    def build(self, kernel: Kernel, key: Any, target: Target) -> Built:
        """Build `key` into the store in this process, which another one has locked."""
        with self.pinned(kernel, target) as involved:
            job = self._job(kernel, key, target, involved)
            answer, n_compiled = self._build_here(job, self._intact(job))
        return Built(n_compiled, answer)

    def origin(self, kernel: Kernel, target: Target) -> Origin:
        """What the artifacts of `kernel` are built from in this process."""
        with self.pinned(kernel, target) as involved:
            return _origin(self._records[id(kernel)], involved)

    def _job(self, kernel: Kernel, key: Any, target: Target, involved: Sequence[Backend]) -> Build:
        record, text = self._records[id(kernel)], encode_key(key)
        origin = _origin(record, involved)
        fingerprint = self._store.fingerprint(record.id, text, str(target), origin.toolchain, origin.source)
        return Build(record, key, text, target, involved, fingerprint, origin)

    def _intact(self, job: Build) -> Entry | None:
        """The entry of a key, if it is there and whole; a damaged one is dropped."""
        known = self._store.find(job.fingerprint)
        if known and (damaged := self._store.damaged(known)):
            self._drop(known, job.involved, [str(file) for file in damaged])
            return None
        return known

    def _built(self, job: Build, known: Entry | None, lock: int | None) -> Built | None:
        """How a build elsewhere ended, ahead or now; None if the key must be built here, or if there was none.

        Raises:
            Skipped: The budget has ended.
            Exception: Why it cannot be built.
        """
        ended = self._ahead.pop(job.fingerprint, None)
        if known is not None:
            return ended if isinstance(ended, Built) else None
        if isinstance(ended, Exception):
            raise ended
        if ended is not None:
            return ended
        return self.elsewhere.build(job, self._store, lock)

    def _build_here(self, job: Build, known: Entry | None) -> tuple[Outcome | None, int]:
        """Call the kernel's own compile, which loads what is there, and record what it built.

        Returns:
            What the kernel answered, if it did, and the number of compiler runs: one of a compiler that nobody counts.
        """
        start = time.monotonic()
        try:
            answer, count = self._watched(job)
        except CompileError as exc:
            if known is None:
                raise
            raise_if_shutting_down()  # then it says nothing of the entry
            # It was built before: what is there cannot be read, whatever the checksums say. A miss, then.
            self._drop(known, job.involved, [exc.message])
            known = None
            answer, count = self._watched(job)
        seconds = round(time.monotonic() - start, 4)
        if answer is Outcome.COMPILED and known is None and not count.n_compiled:
            count.add_compile()
        if count.n_compiled or known is None:
            entry = Entry(job.fingerprint, job.record.id, job.text, str(job.target), job.toolchain, {}, seconds)
            self._store.publish(dataclasses.replace(entry, files=self._store.digests(count.files)))
        if count.n_compiled:
            self._emit("compile", kernel=job.record.id, key=job.text, n=count.n_compiled, seconds=seconds)
        return answer, count.n_compiled

    @property
    def _store(self) -> Store:
        if self._opened is None:
            raise ContractError("keys are compiled while a session runs, not before")
        return self._opened

    def _involved(self, kernel: Kernel, target: Target) -> list[Backend]:
        """The kernel's own backend; for a kernel that no adapter knows, all that can build for `target`."""
        owner = next((backend for backend in self._backends if backend.owns(kernel)), None)
        if owner is None:
            return [b for b in self._backends if not b.missing() and not b.unsupported(target)]
        if missing := owner.missing():
            raise ToolchainError(f"{owner.name} is not installed", missing)
        if reason := owner.unsupported(target):
            raise UnsupportedTargetError(reason)
        return [owner]

    def _watched(self, job: Build) -> tuple[Outcome | None, CompileCount]:
        """Call the kernel's compile, with compiles counted and artifacts collected."""
        directory = self._store.objects(job.fingerprint)
        with ExitStack() as stack:
            counts = [stack.enter_context(backend.count_compiles()) for backend in job.involved]
            # A key that means something in this process only must not be taken for another's.
            if not getattr(job.record.kernel, "is_local", False):
                stack.enter_context(ArtifactScope(directory))
                for backend in job.involved:
                    stack.enter_context(backend.exchange(directory, job.target))
            try:
                answer = job.record.kernel.compile(job.key)
            except (JitwarmError, MemoryError):  # the latter says nothing of the key: a process with more may build it
                raise
            except Exception as exc:
                raise self._explained(exc, job.involved, job.target) from exc
        if isinstance(answer, Outcome) and not answer.is_warm:
            hint = "raise jitwarm.Unresolved or jitwarm.Skipped with the reason"
            raise _COLD.get(answer, CompileError)(f"compile answered {answer.value}, and not why", hint)
        total = CompileCount(sum(count.n_compiled for count in counts))
        for count in counts:
            total.add_files(list(count.files))
        total.add_files(sorted(directory.glob("*")))
        return (answer if isinstance(answer, Outcome) else None), total

    def _explained(self, exc: Exception, involved: Sequence[Backend], target: Target) -> JitwarmError:
        """A compiler's error in our words: a missing program is named as such."""
        if len(involved) != 1:
            return CompileError(text_of(exc))  # nobody knows which compiler it came from, if any
        reason = involved[0].missing_toolchain(target)
        return ToolchainError(reason) if reason else CompileError(involved[0].explain(exc))

    def _drop(self, entry: Entry, involved: Sequence[Backend], why: list[str]) -> None:
        """Remove everything that an entry consists of from the compilers' caches, so that they miss."""
        for name in entry.files:
            for backend in involved:
                remove(backend.entry_root(self._store.root / name))
        remove(self._store.objects(entry.fingerprint))
        self._store.forget(entry.fingerprint)
        self._emit("entry_damaged", kernel=entry.kernel, key=entry.key, why=why)

    @contextmanager
    def _locked(self, fingerprint: str) -> Iterator[int | None]:
        """Hold the key's lock; where it is not free in time, go on without it: late is better than never."""
        with ExitStack() as stack:
            lock = None
            try:
                if self._lock_timeout_s is not None:
                    lock = stack.enter_context(self._store.lock(fingerprint, self.patience_s))
            except LockTimeoutError as exc:
                self._emit("lock_timeout", error=exc.message)
            yield lock


def _outcome(answer: Outcome | None, n_compiled: int, built: Built | None) -> Outcome:
    """How a key became warm in this run: what this process has loaded may have been compiled for it by another one."""
    here = answer or (Outcome.COMPILED if n_compiled else Outcome.LOADED)
    return here if built is None or here is Outcome.COMPILED else built.how


def _origin(record: RegisteredKernel, involved: Sequence[Backend]) -> Origin:
    return Origin("; ".join(backend.toolchain().text() for backend in involved), source_digest(record))


def _pin(stack: ExitStack, backend: Backend, target: Target, *, is_sure: bool) -> bool:
    """Pin one backend. One that cannot be imported is no matter for a kernel of which nobody knows whether it uses it."""
    try:
        stack.enter_context(backend.pin(target))
    except JitwarmError:
        raise
    except Exception:
        if is_sure:
            raise
        return False
    return True


def default_warmup_keys(kernel: Kernel, config: WarmupConfig) -> Sequence[Any]:
    """The keys that `kernel` itself lists; for a policy that wants these and something more."""
    return list(kernel.get_warmup_keys(config))


def default_compile(kernel: Kernel, key: Any, target: Target) -> Outcome:
    """Make `key` warm as if there were no policy; for a policy that wants this and something more.

    Raises:
        ContractError: Called outside a `jitwarm_compile` hook.
    """
    try:
        policy = _ACTIVE.get()
    except LookupError:
        raise ContractError("default_compile answers inside a jitwarm_compile hook only") from None
    return policy.compile(kernel, key, target)
