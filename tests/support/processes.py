"""Starting real processes from tests."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

SUPPORT = Path(__file__).parent


def one_run(root, *names, **environ):
    """Warm kernels in a fresh process; see `one_run.py`. Returns its report."""
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "one_run.py"), str(root), *names],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def outcomes(report):
    """The outcomes of a report's keys, in order."""
    return [key["outcome"] for kernel in report["kernels"] for key in kernel["keys"]]


def errors(report):
    """The errors of a report's keys, in order."""
    return [key["error"] for kernel in report["kernels"] for key in kernel["keys"]]


def is_running(pid):
    """Whether a process is there and not a mere zombie, which nobody may ever collect in a container."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_until(condition, what, seconds=20):
    """Poll until `condition()` is true, generously; then return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not after {seconds} s: {what}"
        time.sleep(0.05)
    return found


def marked(variable="FAULTY_NOTES"):
    """Processes that were started, by whomever, with a variable as it is here now, as {pid: command line}; not this one."""
    wanted = f"{variable}={os.environ[variable]}".encode()
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (place / "environ").read_bytes().split(b"\0") and is_running(place.name):
                found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            continue  # it has ended, or is another user's
    found.pop(os.getpid(), None)
    return found
