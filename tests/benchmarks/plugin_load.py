"""What jitwarm costs in vLLM's `load_general_plugins()`: the real function, in fresh processes, with our plugin and without.

    python tests/benchmarks/plugin_load.py [RUNS]

To be run with an interpreter that has vLLM and jitwarm. Each process first imports what vLLM has imported by then in each of its
processes (`vllm`, `vllm.config`, `vllm.v1.worker.worker_base`); the runs of both kinds alternate.
"""

import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version

GOAL_MS = 10
PROGRAM = """
import time
import vllm, vllm.config, vllm.v1.worker.worker_base
from vllm.plugins import load_general_plugins
start = time.perf_counter()
load_general_plugins()
print("ms", (time.perf_counter() - start) * 1000)
"""


def measure(plugins):
    environ = {**os.environ, "VLLM_PLUGINS": plugins, "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=True)
    return float(done.stdout.rpartition("ms ")[2])


def main():
    n_runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    times = {"no plugin": [], "jitwarm": []}
    for _ in range(n_runs):
        times["no plugin"].append(measure(""))
        times["jitwarm"].append(measure("jitwarm"))
    print(f"{'load_general_plugins()':24}  median, ms  least, ms")
    for name, found in times.items():
        print(f"{name:24}  {statistics.median(found):10.2f}  {min(found):9.2f}")
    pairs = zip(times["jitwarm"], times["no plugin"], strict=True)
    added = [ours - without for ours, without in pairs]
    print(f"{'added by jitwarm':24}  {statistics.median(added):10.2f}  {min(added):9.2f}   goal {GOAL_MS} or less")
    print(
        f"{n_runs} runs each, Python {platform.python_version()}, vLLM {_vllm_version()}, jitwarm {version('jitwarm')}"
    )


def _vllm_version():
    import vllm.version

    return vllm.version.__version__


if __name__ == "__main__":
    main()
