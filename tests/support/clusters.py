"""Real clusters of Ray and Dask on this machine, each node a group of processes that can be killed.

Every process of a cluster carries a variable that names its cluster and node, and hands it on to those that it starts. So each
of them is found, and none is left behind, whatever became of its parent.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

_START_S = 120
_STORE_BYTES = 80_000_000  # the least that Ray takes


class Cluster:
    """The processes of one cluster."""

    def __init__(self, directory):
        self.directory = directory
        self.address = ""
        self._started = []
        self._mark = f"JITWARM_TEST_CLUSTER={uuid.uuid4().hex}"

    def start(self, node, *command):
        """Start a process of a node; what it prints goes to a file."""
        mark, _, value = self._mark.partition("=")
        environ = {
            **os.environ, mark: value, "JITWARM_TEST_NODE": node, "TMPDIR": str(self.directory), "CUDA_VISIBLE_DEVICES": "",
            "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        log = self.directory / f"{node}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, *command], env=environ, stdout=out, stderr=out, start_new_session=True
            )
        self._started.append(process)
        return log

    def processes(self, node, *words):
        """The processes of a node whose command line holds one of `words`; of any node and command where none is given."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                environ = (place / "environ").read_bytes().decode(errors="replace").split("\0")
                command = (place / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            except OSError:
                continue
            is_ours = self._mark in environ and f"JITWARM_TEST_NODE={node}" in (
                environ if node else [f"JITWARM_TEST_NODE={node}"]
            )
            if is_ours and (not words or any(word in command for word in words)):
                found.append(int(place.name))
        return found

    def kill(self, pids):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def leftovers(self):
        """Directories of hosts that nobody has removed."""
        return list(self.directory.glob("jitwarm-host-*"))

    def close(self):
        deadline = time.monotonic() + 30
        while (pids := self.processes("")) and time.monotonic() < deadline:
            self.kill(pids)
            time.sleep(0.1)
        for process in self._started:
            process.kill()
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def cluster():
    """An empty cluster; at the end nothing of it is left."""
    made = Cluster(Path(tempfile.mkdtemp(prefix="jw-", dir="/tmp")))  # Ray's sockets lie below it: a path of 107 bytes
    try:
        yield made
    finally:
        made.close()


def free_ports(n):
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def ray_cluster():
    """A head without CPUs and two nodes, `one` and `two`, of one CPU each. `address` is the head's, `client` for `ray://`."""
    with cluster() as made:
        head, client, agent = free_ports(3)
        common = ["--block", "--disable-usage-stats", f"--object-store-memory={_STORE_BYTES}"]
        common += ["--min-worker-port=0", "--max-worker-port=0"]
        start = ["-m", "ray.scripts.scripts", "start"]
        made.address, made.client = f"127.0.0.1:{head}", f"ray://127.0.0.1:{client}"
        log = made.start(
            "head", *start, "--head", f"--port={head}", f"--ray-client-server-port={client}", "--num-cpus=0",
            f"--runtime-env-agent-port={agent}", "--include-dashboard=false", f"--temp-dir={made.directory}", *common,
        )  # fmt: skip
        _await(log, "Ray runtime started")
        for node in ("one", "two"):
            log = made.start(node, *start, f"--address={made.address}", "--num-cpus=1", *common)
            _await(log, "Ray runtime started")
        yield made


@contextmanager
def dask_cluster():
    """A scheduler and two nodes, `one` and `two`, of one worker with one thread each."""
    with cluster() as made:
        (port,) = free_ports(1)
        made.address = f"tcp://127.0.0.1:{port}"
        log = made.start(
            "head", "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"
        )  # fmt: skip
        _await(log, "Scheduler at")
        for node in ("one", "two"):
            log = made.start(
                node, "-m", "distributed.cli.dask_worker", made.address, "--nthreads", "1", "--nworkers", "1",
                "--no-dashboard", "--local-directory", str(made.directory / node),
            )  # fmt: skip
            _await(log, "Registered to")
        yield made


def _await(log, words):
    """Wait until a node says these words; what it says instead is the error."""
    deadline = time.monotonic() + _START_S
    while words not in (said := log.read_text(errors="replace")):
        assert time.monotonic() < deadline, f"{log.stem} does not start:\n{said[-2000:]}"
        time.sleep(0.1)
