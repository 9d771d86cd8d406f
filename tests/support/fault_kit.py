"""A kernel whose keys are the faults of `jitwarm.testing`, and a few more, so that what they cost can be counted.

Each call is noted in the file that `FAULTY_NOTES` names, before anything happens: what it does, in which process, and under
which mother.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import kits

from jitwarm import Target, WarmupConfig, hookimpl
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings
from jitwarm.testing import FaultyKernel

# The module of a plugin that yields the kernel; `kits.install` writes it.
PLUGIN = """
from fault_kit import jitwarm_backends, jitwarm_kernels
"""


Does = FaultyKernel.CompileKey


class Faulty(FaultyKernel):
    """Its keys are those that the configuration gives the plugin `faulty`."""

    def get_warmup_keys(self, config):
        return [Does(what) for what in config.for_plugin("faulty")["does"]]

    def compile(self, key):
        note(key.fault)
        word, _, rest = key.fault.partition(" ")
        if word == "builds" and rest:
            builds(key.fault)
        elif word == "sleeps" and rest:  # "sleeps 6 s"
            time.sleep(float(rest.split()[0]))
            builds(key.fault)
        elif word == "spins" and rest:  # "spins 6 s"
            ends_at = time.monotonic() + float(rest.split()[0])
            while time.monotonic() < ends_at:
                pass
        elif word == "shows":
            note(key.fault, value=os.environ.get(rest))
        elif key.fault in DOES:
            DOES[key.fault]()
        else:
            return super().compile(key)
        return None

    def build(self, key):
        builds(key.fault)


@hookimpl
def jitwarm_kernels():
    return [Faulty(name="kernel", backend=kits.Workshop.name)]


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


def session(root, *does, listeners=(), plugin="faulty", executor=None, left_to_others=None, **settings):
    """A server's session over an installed plugin, with these keys in this order."""
    asked = Asked(WarmupConfig(extra={plugin: {"does": list(does)}}), Settings(plugins=(plugin,), **settings))
    given = {"root": Path(root), "listeners": listeners, "left_to_others": left_to_others, "executor": executor}
    return Session(asked, Target("cuda", "90"), **given)


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


def tells_its_priority():
    sessions = Path("/proc/self/autogroup")  # empty where the machine's first process has made the session
    said = sessions.read_text().split() if sessions.exists() else []
    of_session = int(said[-1]) if said else os.nice(0)
    note("priority", priority=[os.nice(0), of_session])
    builds("tells its priority")


# What only these tests need; everything else is a fault of `jitwarm.testing`.
DOES = {
    "builds": builds,
    "meets one": lambda: meets("meets another", "meets one"),
    "meets another": lambda: meets("meets one", "meets another"),
    "returns": lambda: None,
    "tells its priority": tells_its_priority,
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
    timeout_s = float(os.environ.get("FAULTY_KEY_TIMEOUT_S", "300"))
    server = session(sys.argv[1], *sys.argv[2:], listeners=listeners, key_timeout_s=timeout_s)
    server.run(server.plan())
