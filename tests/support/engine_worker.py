"""A vLLM CPU worker that arms vLLM's JIT monitor where the GPU worker does, and can be asked to use kernels under it.

vLLM arms its monitor on GPUs only; here the monitor is vLLM's own, in `error` mode. `HAS_TRITON` is set because the CPU build has
switched it off (Triton has no CPU backend), and with it the monitor's Triton hook. Nothing can be launched without a GPU, so
`kernel.warmup` with a launch's arguments stands for the launch: both go through the same look-up.
"""

import os

from vllm.v1.worker.cpu_worker import CPUWorker

from jitwarm.errors import NoDeviceError


class MonitoredCPUWorker(CPUWorker):
    def compile_or_warm_up_model(self):
        result = super().compile_or_warm_up_model()
        from vllm.utils import jit_monitor

        jit_monitor.HAS_TRITON = True
        jit_monitor.activate(mode="error")
        return result

    def use_triton(self, block):
        """A launch of the package `alpha`'s kernel on real tensors, as far as it goes without a GPU."""
        import alpha_kernels
        import torch

        x, out = torch.empty(64), torch.empty(64)
        return _attempt(
            lambda: alpha_kernels.scale.warmup(x, out, 64, 2.0, BLOCK=block, num_warps=4, num_stages=3, grid=(1,))
        )

    def launch_scale(self, n):
        """A launch through the kernel object of the package `alpha`, up to the driver that is not here."""
        import alpha_kernels
        import torch

        x, out = torch.empty(128), torch.empty(128)
        try:
            alpha_kernels.Scale()(x, out, n, 2.0, grid=(1,), n=n, dtype="float32")
        except NoDeviceError:
            return "launched"
        except RuntimeError as exc:
            return f"raised: {str(exc).split()[0].lower()}"

    def tuned_in_use(self):
        """What the package `tuned` uses in this rank."""
        import tuned_kernels

        return (tuned_kernels.Threads.in_use or b"").decode()

    def use_cutedsl(self, n):
        from jitwarm_example.silu_and_mul import SILU_AND_MUL

        return _attempt(lambda: _use_cutedsl(SILU_AND_MUL, SILU_AND_MUL.dispatch(n=n, dtype="float32")))

    def use_tilelang(self, m, n, k):
        from jitwarm_example.gemm import GEMM

        arguments = GEMM.factory_args(GEMM.dispatch(m=m, n=n, k=k, dtype="float32"))
        return _attempt(lambda: GEMM.factory(**arguments))


class ApartCPUWorker(MonitoredCPUWorker):
    """Each rank has a store of its own, as on nodes that share no file system."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        os.environ["JITWARM_CACHE_DIR"] += f"-{self.rank}"


class SteppingCPUWorker(MonitoredCPUWorker):
    """Each step of the model uses a kernel of which nobody declares this block size, as the model's own code would."""

    def compile_or_warm_up_model(self):
        return CPUWorker.compile_or_warm_up_model(self)

    def execute_model(self, scheduler_output):
        if scheduler_output.total_num_scheduled_tokens:
            self.use_triton(256)
        return super().execute_model(scheduler_output)


class FailingCPUWorker(CPUWorker):
    """The second time that tokens are sampled, the sampler raises."""

    n_sampled = 0

    def sample_tokens(self, grammar_output):
        self.n_sampled += 1
        if self.n_sampled == 2:
            self.model_runner._sample = self._fail
        return super().sample_tokens(grammar_output)

    def _fail(self, *_):
        del self.model_runner._sample
        raise RuntimeError("no more registers")


def _use_cutedsl(kernel, key):
    if not kernel.is_warm(key):
        kernel.compile(key)


def _attempt(function):
    try:
        function()
    except RuntimeError as exc:
        return f"raised: {exc}"
    return "passed"
