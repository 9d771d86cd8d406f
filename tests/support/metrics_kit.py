"""Event files as real processes write them, and a page of metrics as a server shows it."""

import json
import subprocess
import sys
from contextlib import contextmanager

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

# A worker: each line on stdin is one event, answered by a line when it is written.
WORKER = """
import json, os, sys
from pathlib import Path
from jitwarm import environment
from jitwarm.events import EventLog
directory, run, rank, lineage = sys.argv[1:]
if lineage:
    os.environ["JITWARM_LINEAGE"] = lineage
    environment.join_lineage()
log = EventLog(run, int(rank))
log.keep_in(Path(directory))
if lineage:
    log.emit("registered", lineage=os.environ["JITWARM_LINEAGE"])
print(os.getpid(), flush=True)
for line in sys.stdin:
    for name, fields in json.loads(line):
        log.emit(name, **fields)
    print("written", flush=True)
"""


class Worker:
    """A process that writes events."""

    def __init__(self, events, run="run", rank=0, lineage=""):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(events), run, str(rank), lineage],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = int(self.process.stdout.readline())

    def emit(self, *events):
        """Write events, each a (name, fields)."""
        print(json.dumps(events), file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "written\n"

    def end(self):
        """As a server ends, or as it is killed: the file stays."""
        if self.process.stdin.closed:
            return
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=60)


def warm(*keys, kernel="site:rope", backend="triton", outcome="compiled"):
    """The events of a warm-up."""
    planned = {"kernel": kernel, "backend": backend}
    ends = [{"kernel": kernel, "digest": key, "outcome": outcome, "error": None, "seconds": 0.5} for key in keys]
    return [
        ("run_start", {"target": "cuda:90", "root": "/x", "on_device": False}),
        ("backends", {"plugins": {"triton": "", "cutedsl": ""}, "caches": {}}),
        ("kernel_planned", planned),
        *[("key_end", end) for end in ends],
        ("run_end", {}),
        ("monitor_armed", {"by": "jitwarm", "mode": "warn"}),
    ]


def miss(kernel="site:rope", backend="triton", seconds=1.5, what="compile"):
    """An event of the monitor, with the fields that it has."""
    fields = {"backend": backend, "what": what, "function": "site:rope", "kernel": kernel, "plugin": "site", "key": "",
              "digest": "", "label": "n=3", "nearest": "", "differences": [], "why": "", "line": "", "site": "",
              "seconds": seconds, "thread": "MainThread"}  # fmt: skip
    return ("unexpected_compile", fields)


def page(collector):
    """What a server shows: sample name and labels -> value, by way of the text that is sent."""
    registry = CollectorRegistry()
    registry.register(collector)
    return parsed(generate_latest(registry).decode())


def parsed(text):
    """Sample -> value of a page, e.g. `jitwarm_keys{outcome="compiled",plugin="site"}`."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            name = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert name not in found, f"{name} is there twice"
            found[name] = sample.value
    return found


ROPE = '{backend="triton",kernel="site:rope"}'


@contextmanager
def workers(events):
    """A function that starts processes that write events; they end with the context."""
    started = []

    def start(**given):
        started.append(Worker(events, **given))
        return started[-1]

    try:
        yield start
    finally:
        for worker in started:
            worker.end()
