"""A kernel whose compile does what its key says, so that what a compiler's fault costs can be seen in real processes.

Each call is noted in the file that `FAULTY_NOTES` names, before anything happens: what it does, in which process, and under
which mother.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import kits

from jitwarm import Skipped, Target, Unresolved, WarmupConfig, hookimpl
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings

# The module of a plugin that yields the kernel; `kits.install` writes it.
PLUGIN = """
from fault_kit import jitwarm_backends, jitwarm_kernels
"""


@dataclass(frozen=True)
class Does:
    what: str


class Faulty:
    """Its keys are those that the configuration gives the plugin `faulty`."""

    CompileKey = Does
    name = "kernel"
    backend = kits.Workshop.name

    def dispatch(self, *, what):
        return Does(what)

    def get_warmup_keys(self, config):
        return [Does(what) for what in config.for_plugin("faulty")["does"]]

    def compile(self, key):
        note(key.what)
        word, _, rest = key.what.partition(" ")
        if word == "builds" and rest:
            builds(key.what)
        elif word == "sleeps" and rest:  # "sleeps 6 s"
            time.sleep(float(rest.split()[0]))
            builds(key.what)
        elif word == "shows":
            note(key.what, value=os.environ.get(rest))
        else:
            DOES[key.what]()


@hookimpl
def jitwarm_kernels():
    return [Faulty()]


@hookimpl
def jitwarm_backends():
    return [kits.Workshop()]


def note(what, **more):
    line = json.dumps({"does": what, "pid": os.getpid(), "mother": os.getppid(), **more}) + "\n"
    with Path(os.environ["FAULTY_NOTES"]).open("a") as file:
        file.write(line)


def notes():
    """What was noted, in order; a line that is still being written is left out."""
    file = Path(os.environ["FAULTY_NOTES"])
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def session(root, *does, listeners=(), plugin="faulty", executor=None, **settings):
    """A server's session over an installed plugin, with these keys in this order."""
    asked = Asked(WarmupConfig(extra={plugin: {"does": list(does)}}), Settings(plugins=(plugin,), **settings))
    return Session(asked, Target("cuda", "90"), root=Path(root), listeners=listeners, executor=executor)


def run(root, *does, **settings):
    """One run of `session`. Returns its rows as (outcome, error)."""
    made = session(root, *does, **settings)
    report = made.run(made.plan())
    made.finish()
    return [(row.outcome, row.error) for row in report.rows]


def run_into(file, root, *does):
    """`run`, with the rows as JSON in a file: for another process."""
    Path(file).write_text(json.dumps(run(root, *does)))


# --- what a key does ---------------------------------------------------------------------------------------------------


def builds(name="builds"):
    """Count one compile where the artifact is not there yet, as a compiler with a disk cache does."""
    artifact = Path(f"{os.environ['FAULTY_NOTES']}.{name}")
    if not artifact.exists():
        kits.Workshop.count.n_compiled += 1
        artifact.write_text("artifact")


def meets(other, name):
    """Wait until another key is under way as well."""
    deadline = time.monotonic() + 60
    while not any(noted["does"] == other for noted in notes()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{other} was not begun")
        time.sleep(0.02)
    builds(name)


def raises():
    raise ValueError("tile does not divide")


class UnpicklableError(Exception):
    def __init__(self):
        super().__init__("held a lock")
        self.lock = threading.Lock()


def raises_unpicklable():
    raise UnpicklableError


class WithoutTextError(Exception):
    def __str__(self):
        raise RuntimeError("this error has no text")


def raises_without_text():
    raise WithoutTextError


def is_skipped():
    raise Skipped("the autotuner would skip it")


def is_unresolved():
    raise Unresolved("needs a device", "warm it elsewhere")


def dumps_no_core():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def aborts():
    dumps_no_core()
    os.abort()


def segfaults():
    dumps_no_core()
    ctypes.string_at(0)


def kills_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def dies_of_a_signal_without_a_name():
    os.kill(os.getpid(), signal.SIGRTMIN + 3)


def tells_its_priority():
    note("priority", priority=os.nice(0))
    builds("tells its priority")


def spins():
    while True:
        pass


def prints_megabytes():
    for _ in range(40_000):
        print("stdout " + "x" * 100)
        print("stderr " + "x" * 100, file=sys.stderr)
    builds("prints_megabytes")


def prints_and_ends():
    for i in range(1000):
        print(f"line {i}", file=sys.stderr)
    print("ptxas: out of registers", file=sys.stderr)
    os._exit(3)


def prints_to_stdout_and_ends():
    print("ptxas: out of registers")
    os._exit(3)


def starts_a_process():
    """A process that outlives the compile, in the worker's group."""
    started = subprocess.Popen(["sleep", "600"])
    note("grandchild", grandchild=started.pid)


def starts_a_process_and_sleeps():
    starts_a_process()
    time.sleep(600)


def starts_a_process_and_ends():
    """As a C++ compiler does it: the process inherits what is not closed on exec."""
    os.system("sleep 600 & echo $! > $FAULTY_NOTES.system")
    note("grandchild", grandchild=int(Path(os.environ["FAULTY_NOTES"] + ".system").read_text()))
    os._exit(3)


DOES = {
    "builds": builds,
    "meets one": lambda: meets("meets another", "meets one"),
    "meets another": lambda: meets("meets one", "meets another"),
    "returns": lambda: None,
    "raises": raises,
    "raises unpicklable": raises_unpicklable,
    "raises without text": raises_without_text,
    "is skipped": is_skipped,
    "is unresolved": is_unresolved,
    "exits": lambda: sys.exit("no driver"),
    "ends": lambda: os._exit(3),
    "aborts": aborts,
    "segfaults": segfaults,
    "kills itself": kills_itself,
    "dies of a signal without a name": dies_of_a_signal_without_a_name,
    "sleeps": lambda: time.sleep(600),
    "spins": spins,
    "tells its priority": tells_its_priority,
    "prints megabytes": prints_megabytes,
    "prints and ends": prints_and_ends,
    "prints to stdout and ends": prints_to_stdout_and_ends,
    "starts a process": starts_a_process,
    "starts a process and sleeps": starts_a_process_and_sleeps,
    "starts a process and ends": starts_a_process_and_ends,
}


if __name__ == "__main__":  # python fault_kit.py ROOT DOES ...: a server, until it is killed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as vLLM's workers end
    if os.environ.get("FAULTY_FORKS"):  # a fork holds every socket of this process open, as a server's own forks may

        def hold(event):
            if event["event"] == "child_start" and os.fork() == 0:
                note("holder")
                time.sleep(600)
                os._exit(0)

        listeners = [hold]
    else:
        listeners = []
    server = session(sys.argv[1], *sys.argv[2:], listeners=listeners)
    server.run(server.plan())
