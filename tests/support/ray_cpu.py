"""A platform of vLLM: a stand-in for a node of two GPUs, so that Ray places workers where there is none. They run on the CPU."""

from vllm.platforms.cpu import CpuPlatform


class RayCpuPlatform(CpuPlatform):
    """vLLM's own CPU platform refuses Ray, which knows CPUs by another name."""

    ray_device_key = "GPU"
    ray_noset_device_env_vars = ("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES",)


def platform():
    """The entry point in `vllm.platform_plugins`."""
    return "ray_cpu.RayCpuPlatform"
