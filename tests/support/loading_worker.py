"""A vLLM CPU worker whose weights take as long to load as a test says: a stand-in for a disk that is slow, or fails."""

import functools
import os
import signal
import time
from pathlib import Path

from serving_worker import ServingCPUWorker
from vllm.v1.worker.cpu_worker import CPUWorker

_DEADLINE_S = 240


class LoadingCPUWorker(CPUWorker):
    """`LOADING` says how: `until N` keys are in the store; `kill 1` kills the builder then, `fail 1` fails, `die 1` is
    killed; `seconds S` waits. `loading_s` tells how long the weights themselves took.
    """

    def loading_s(self):
        return self._loading_s

    def load_model(self, *args, **kwargs):
        begin = time.perf_counter()
        super().load_model(*args, **kwargs)
        self._loading_s = time.perf_counter() - begin
        word, _, number = os.environ["LOADING"].partition(" ")
        if word == "seconds":
            time.sleep(float(number))
            return
        wait_for_keys(int(number))
        if word == "until":
            self._jitwarm_early._thread.join(_DEADLINE_S)  # the keys are listed by then
        if word == "kill":
            os.kill(self._jitwarm_early._builder.pid, signal.SIGKILL)
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "fail":
            raise OSError("the weights end in the middle")


def wait_for_keys(n):
    deadline = time.monotonic() + _DEADLINE_S
    manifests = Path(os.environ["JITWARM_CACHE_DIR"], "manifest")
    while len(list(manifests.glob("*.json"))) < n and time.monotonic() < deadline:
        time.sleep(0.1)


class ElasticCPUWorker(ServingCPUWorker, LoadingCPUWorker):
    """Stands in for a worker of a new engine in an elastic scale-up, which takes GPUs: vLLM's calls there, in their order.

    Those who serve have measured memory, so no profile runs here; and kernels are launched before the worker's own warm-up.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.determine_available_memory = functools.partial(CPUWorker.determine_available_memory, self)
        self.compile_or_warm_up_model = self.warmup_new_worker

    def warmup_new_worker(self):
        for block in (128, 256):  # declared, and not
            self.use_triton(block)
        return type(self).compile_or_warm_up_model(self)
