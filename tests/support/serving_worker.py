"""A vLLM CPU worker that can be asked, while it serves, to use a kernel that was not warmed, or one that was."""

from vllm.v1.worker.cpu_worker import CPUWorker


class ServingCPUWorker(CPUWorker):
    def use_triton(self, block):
        """A launch of the package `alpha`'s kernel, as far as it goes without a GPU."""
        import alpha_kernels
        import torch

        x, out = torch.empty(64), torch.empty(64)
        alpha_kernels.scale.warmup(x, out, 64, 2.0, BLOCK=int(block), num_warps=4, num_stages=3, grid=(1,))
        return "used"
