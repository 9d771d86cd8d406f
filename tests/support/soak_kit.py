"""A cheap kernel that notices when it is compiled twice, and a rank that makes it warm again and again in fresh stores.

Compiling a key is some milliseconds of file work. Its artifact appears by one rename under a name of its own, so that a second
finished compile is a second file; and a link under `making` says who is compiling a key now, so that a second process sees it.

`python soak_kit.py SOCKET` is the rank: it obeys `tests/races/soak.py` until the socket closes.
"""

import faulthandler
import os
import random
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import kits

from jitwarm import Target, WarmupConfig, hookimpl
from jitwarm.engine import wire
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings

# The module of a plugin that yields the kernel; `kits.install` writes it.
PLUGIN = """
from soak_kit import jitwarm_backends, jitwarm_kernels
"""
# In the environment of each process of a round: its store, and the process id of its rank.
ROUND, RANK = "SOAK_ROUND", "SOAK_RANK"
N_STEPS = 8
_EXITING = 0x4  # PF_EXITING of Linux


@dataclass(frozen=True)
class Piece:
    n: int


class Bench(kits.Workshop):
    """Its compiler keeps artifacts in a cache of its own, as Triton's does."""

    name = "bench"
    cache_variables = {"SOAK_CACHE_DIR": "bench"}

    def is_warm(self, kernel, key):
        return key in kernel.warm


class Cheap:
    """As many keys as the configuration says."""

    CompileKey = Piece
    name = "cheap"
    backend = Bench.name

    def __init__(self):
        self.warm = set()

    def dispatch(self, *, n):
        return Piece(n)

    def get_warmup_keys(self, config):
        return [Piece(n) for n in range(config.for_plugin("soak")["n_keys"])]

    def compile(self, key):
        entry = Path(os.environ["SOAK_CACHE_DIR"], str(key.n))
        if not artifacts(entry):
            with alone(key.n):
                make(entry)
            Bench.count.add_compile()
        Bench.count.add_files(artifacts(entry))
        self.warm.add(key)


@hookimpl
def jitwarm_kernels():
    return [Cheap()]


@hookimpl
def jitwarm_backends():
    return [Bench()]


def artifacts(entry):
    """The finished compiles of a key: one file each, `<process id>-<time>.bin`."""
    return sorted(entry.glob("*.bin"))


def make(entry):
    """Compile: write an artifact in small steps, and publish it."""
    entry.mkdir(parents=True, exist_ok=True)
    name = f"{os.getpid()}-{time.monotonic_ns()}"
    part = entry / f".{name}.part"
    with part.open("wb") as file:
        for _ in range(N_STEPS):
            file.write(os.urandom(4096))
            file.flush()
            time.sleep(random.uniform(0, 0.006))
    part.rename(entry / f"{name}.bin")


class alone:
    """While entered, this process compiles key `n`. Leaves a file under `overlaps` if another one does so, too.

    A link is made with what it says in one step. A process that was killed leaves its link behind, and that is no overlap.
    """

    def __init__(self, n):
        self.notes = Path(os.environ["SOAK_NOTES"])
        self.n, self.link = n, self.notes / "making" / str(n)

    def __enter__(self):
        me = f"{os.getpid()} {started(os.getpid())}"
        (self.notes / "begun" / f"{self.n}-{os.getpid()}-{os.environ[RANK]}").touch()
        while True:
            try:
                return self.link.symlink_to(me)
            except FileExistsError:
                other = maker(self.link)
            if other is not None:
                (self.notes / "overlaps" / f"{self.n}: {me} and {other}").touch()
            self.link.unlink(missing_ok=True)

    def __exit__(self, *exc):
        self.link.unlink(missing_ok=True)


def maker(link):
    """The process that a link of `making` names; None if it was killed. 0 if the link is gone: it compiled until now."""
    try:
        pid, began = map(int, str(link.readlink()).split())
    except FileNotFoundError:
        return 0
    return pid if started(pid) == began else None


def started(pid):
    """When a process began, in ticks; None if it does nothing any more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if int(fields[6]) & _EXITING or fields[0] in "ZX" else int(fields[19])


# --- the rank ----------------------------------------------------------------------------------------------------------


def session(root, n_keys, n_workers):
    asked = Asked(
        WarmupConfig(extra={"soak": {"n_keys": n_keys}}), Settings(plugins=("soak",), workers=n_workers, run_id="run")
    )
    return Session(asked, Target("cuda", "90"), root=Path(root))


def n_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def serve(driver):
    """Round by round: plan, say so, wait until all have, warm, report."""
    while order := wire.receive(driver):
        os.environ.update({ROUND: order["root"], RANK: str(os.getpid()), "SOAK_NOTES": order["notes"]})
        n_open = n_descriptors()
        made = session(order["root"], order["n_keys"], order["n_workers"])
        plan = made.plan()
        wire.send(driver, "ready")
        wire.receive(driver)
        report = made.run(plan)
        made.finish()
        kernel = made.kernels[0].kernel
        for thread in threading.enumerate():
            if thread.name.startswith("jitwarm: build"):
                thread.join(60)
        answer = {
            "rows": [(row.outcome, row.error) for row in report.rows],
            "n_warm": len(kernel.warm),
            "n_compiles": report.n_compiles,
            "n_descriptors_left": n_descriptors() - n_open,
        }
        wire.send(driver, answer)


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # the driver asks, where a rank hangs
    given = socket.socket(fileno=int(sys.argv[1]))
    given.set_inheritable(False)
    serve(given)
