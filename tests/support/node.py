"""Several ranks of one node, in real processes; see `rank.py`."""

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager

from processes import SUPPORT


@contextmanager
def ranks(root, n_ranks, plugin="example"):
    """Start ranks that begin together; each is killed at the end, should it still be there."""
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SUPPORT / "rank.py"), str(root), str(n_ranks), plugin]
    started = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(n_ranks)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def compiles(root):
    """How often each key was compiled, by whatever process."""
    lines = [line for file in (root / "events" / "run").glob("*.jsonl") for line in file.read_text().splitlines()]
    events = [json.loads(line) for line in lines]
    return Counter((event["kernel"], event["key"]) for event in events if event["event"] == "compile")
