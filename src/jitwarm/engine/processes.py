"""The processes of `jitwarm.engine.workers`, seen from this side: mother, template and worker."""

import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jitwarm.engine import wire
from jitwarm.engine.descendants import is_over
from jitwarm.engine.jobs import Answer, Job
from jitwarm.errors import KeyTimeoutError, WorkerDiedError, WorkersUnavailableError

# Together they hide every GPU from every stack: a child makes no CUDA context, and a machine with a GPU bakes as one without.
BLIND = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": ""}
# numpy's OpenBLAS starts a thread per processor when it is imported, and a template with a second thread forks no worker:
# then each worker would import torch, and whatever the plugin builds on, by itself.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
ENDED = "the compile process ended"

_START_TIMEOUT_S = 120.0  # a mother imports a compiler, on a node that may be busy loading weights
_END_TIMEOUT_S = 2.0
_TAIL_BYTES = 4096
_N_LINES = 8
_POLL_S = 1.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def environment_of_child() -> dict[str, str]:
    """The environment of a compile process: it sees no GPU, and can import what this process can."""
    path = os.pathsep.join(place for place in sys.path if place)
    return {**os.environ, **BLIND, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Limits:
    """What one compile process may take.

    Attributes:
        memory_bytes: Of private memory; a compile that wants more fails. None means no limit.
        max_jobs: After so many keys a fresh process takes its place, because compilers keep memory that they no longer need.
        nice: Added to its scheduling priority: 19 gives way to everything else.
    """

    memory_bytes: int | None = None
    max_jobs: int = 100
    nice: int = 0


class Forks:
    """One process that forks workers and knows how they ended. Its imports are done when it has forked the first one.

    Safe to use in threads: it is asked one question at a time.
    """

    def __init__(self, control: socket.socket, limits: Limits) -> None:
        self._control = control
        self._limits = limits
        self._lock = threading.RLock()

    def fork(self, timeout_s: float = _START_TIMEOUT_S) -> "Worker":
        """A fresh worker.

        Args:
            timeout_s: Longest to wait for the imports.

        Raises:
            WorkersUnavailableError: There is none; this process is ended.
        """
        try:
            jobs, theirs = socket.socketpair()
            output, their_output = os.pipe()
        except OSError as exc:
            raise WorkersUnavailableError(f"no compile process can be started: {exc}") from exc
        limits = {"memory_bytes": self._limits.memory_bytes, "nice": self._limits.nice}
        with self._lock:  # also while it is closed, so that who waits for it does not ask it again
            try:
                pid = self._ask({"fork": limits}, timeout_s, theirs.fileno(), their_output).get("pid")
            finally:
                theirs.close()
                os.close(their_output)
            if pid is None:
                jobs.close()
                os.close(output)
                self.close()
                raise self._unavailable()
        return Worker(pid, jobs, output, self)

    def describe_end(self, pid: int) -> str:
        """How a worker that is gone ended, as the end of a sentence."""
        status = self._ask({"wait": pid}).get("status")
        if status is None:
            return ""
        if status < 0:
            name = next((known.name for known in signal.Signals if known == -status), f"signal {-status}")
            return f": killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f": exit status {status}"

    def close(self) -> None:
        """Let it end."""
        self._control.close()

    def _ask(
        self, question: Mapping[str, Any], timeout_s: float = _START_TIMEOUT_S, *descriptors: int
    ) -> dict[str, Any]:
        """Its answer; an empty one where it gives none, and then it is of no more use."""
        try:
            with self._lock:
                self._tell(question, *descriptors)
                self._control.settimeout(timeout_s)
                return wire.receive(self._control) or {}
        except (OSError, WorkerDiedError):
            return {}

    def _tell(self, message: Mapping[str, Any], *descriptors: int) -> None:
        with self._lock:
            self._control.settimeout(_START_TIMEOUT_S)
            wire.send(self._control, message, descriptors)

    def _unavailable(self) -> WorkersUnavailableError:
        return WorkersUnavailableError("a compile process does not start")


class Mother(Forks):
    """The first process of a run. It imports no compiler and no plugin, so there is little that she can die of."""

    def __init__(self, limits: Limits, environ: Mapping[str, str]) -> None:
        try:
            self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as she does
            control, theirs = socket.socketpair()
        except OSError as exc:
            raise WorkersUnavailableError(f"no compile process can be started: {exc}") from exc
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter and our own module
                [sys.executable, "-P", "-m", "jitwarm.child", str(theirs.fileno())],
                env={**environment_of_child(), **environ, **BLIND, **_ONE_THREAD},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=self._printed,
                start_new_session=True,
            )
        except (OSError, ValueError, TypeError) as exc:
            control.close()
            self._printed.close()
            raise WorkersUnavailableError(f"no compile process can be started: {exc}") from exc
        finally:
            theirs.close()
        super().__init__(control, limits)
        self._n_templates = 0
        self._last = ""

    def template(self, setup: Mapping[str, Any]) -> "Template":
        """A process that she forks, and that imports the plugin of `setup`, a job's JSON, and its compilers. Waits for nothing.

        Raises:
            WorkersUnavailableError: There is none; she is ended.
        """
        try:
            control, theirs = socket.socketpair()
        except OSError as exc:
            raise WorkersUnavailableError(f"no compile process can be started: {exc}") from exc
        self._n_templates += 1
        name = self._n_templates
        try:
            self._tell({"template": name, "setup": setup}, theirs.fileno())
        except OSError as exc:
            control.close()
            self.close()
            raise self._unavailable() from exc
        finally:
            theirs.close()
        return Template(control, self._limits, lambda: self._end_template(name))

    def _end_template(self, name: int) -> None:
        with contextlib.suppress(OSError):  # she has ended, and it with her
            self._tell({"end": name})

    def kill(self) -> None:
        """End her and her templates at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let her end, and see to it that she does."""
        self._control.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        if not self._printed.closed:
            self._printed.seek(0)
            self._last = _last_lines(self._printed.read())
            self._printed.close()

    def _unavailable(self) -> WorkersUnavailableError:
        return WorkersUnavailableError(
            f"a compile process does not start (status {self._process.returncode})", self._last
        )


class Template(Forks):
    """A process between the mother and workers: it has imported one plugin, which otherwise each worker would do."""

    def __init__(self, control: socket.socket, limits: Limits, end: Callable[[], object]) -> None:
        super().__init__(control, limits)
        self._end = end
        self._is_closed = False

    def close(self) -> None:
        """End it. Twice is fine."""
        super().close()
        if not self._is_closed:
            self._is_closed = True
            self._end()


class Worker:
    """One process that compiles.

    Attributes:
        parent: Who forked it.
        setup: Of the jobs that it is for; see `Job.setup`.
    """

    setup: str = ""

    def __init__(self, pid: int, jobs: socket.socket, output: int, parent: Forks) -> None:
        self.pid = pid
        self.parent = parent
        self.n_jobs = 0
        self._jobs = jobs
        self._output = output
        self._tail = b""

    def ask(self, job: Job, timeout_s: float, lock: int | None) -> Answer:
        """Send one job and wait for its answer. What the compilers print meanwhile is read, and its end kept for an error."""
        deadline = time.monotonic() + timeout_s
        self._tail = b""
        self.n_jobs += 1
        try:
            order = {"job": job.to_json(), "timeout_s": timeout_s}
            wire.send(self._jobs, order, () if lock is None else (lock,))
            self._await_answer(deadline, timeout_s)
            self._jobs.settimeout(max(deadline - time.monotonic(), 1.0))
            record = wire.receive(self._jobs)
        except TimeoutError as exc:
            raise WorkerDiedError("the compile process began an answer and did not end it") from exc
        except OSError as exc:
            raise self._end() from exc
        if record is None:
            raise self._end()
        try:
            return Answer.from_json(record)
        except TypeError as exc:
            raise WorkerDiedError(f"the compile process answered what is no answer: {record!r:.200}") from exc

    def is_quiet(self) -> bool:
        """Whether it waits for a job: it is there, and has said nothing that nobody asked for."""
        with contextlib.suppress(OSError), selectors.DefaultSelector() as selector:
            selector.register(self._jobs, selectors.EVENT_READ)
            return not selector.select(0) and not is_over(self.pid)
        return False

    def kill(self) -> None:
        """End it and what it has started, at once."""
        self.kill_only()
        self.close()

    def kill_only(self) -> None:
        """The same, and leave this side to the thread that waits for an answer."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close this side; an idle worker ends by itself."""
        self._jobs.close()
        os.close(self._output)

    def _await_answer(self, deadline: float, timeout_s: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._jobs, selectors.EVENT_READ)
            selector.register(self._output, selectors.EVENT_READ)
            while True:
                ready = selector.select(min(max(deadline - time.monotonic(), 0), _POLL_S))
                if time.monotonic() >= deadline:
                    raise KeyTimeoutError(
                        f"not compiled after {timeout_s:g} s: the compiler was killed",
                        "raise JITWARM_KEY_TIMEOUT_S if it needs longer"
                        + (f"\n{self._printed()}" if self._tail else ""),
                    )
                sources: set[Any] = {key.fileobj for key, _ in ready}
                if self._output in sources and not self._read_output():
                    selector.unregister(self._output)
                if self._jobs in sources:
                    return
                if not ready and is_over(self.pid):
                    raise OSError  # a process that it has left behind holds its socket open

    def _read_output(self) -> bool:
        text = os.read(self._output, 65536)
        self._tail = (self._tail + text)[-_TAIL_BYTES:]
        return bool(text)

    def _end(self) -> WorkerDiedError:
        """What to say where nothing more can come. It has a moment to end, after its socket was closed."""
        deadline = time.monotonic() + _END_TIMEOUT_S
        while not is_over(self.pid):
            if time.monotonic() >= deadline:
                return WorkerDiedError("the compile process closed its connection", self._printed())
            time.sleep(0.01)
        return WorkerDiedError(ENDED, self._printed())

    def _printed(self) -> str:
        """The last lines of what the worker has printed."""
        os.set_blocking(self._output, False)
        with contextlib.suppress(BlockingIOError, OSError):
            while self._read_output():
                pass
        os.set_blocking(self._output, True)
        return _last_lines(self._tail)


def _last_lines(printed: bytes) -> str:
    """The end of what a process printed, for an error; without what would colour or clear a terminal."""
    lines = _COLOUR.sub("", printed.decode(errors="replace")).strip().splitlines()[-_N_LINES:]
    shown = ("".join(c if c.isprintable() else "\ufffd" for c in line.expandtabs()) for line in lines)
    return "it printed last:\n" + "\n".join(f"    {line}" for line in shown) if lines else ""
