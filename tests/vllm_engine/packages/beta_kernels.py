"""Another third party's package: kernels that look at the live model."""

from dataclasses import dataclass

import triton
import triton.language as tl

from jitwarm import IntClass, NeedsModel, TensorSpec, TritonKernel, hookimpl


@triton.jit
def per_head(out_ptr, n_layers, HEAD: tl.constexpr):
    tl.store(out_ptr + tl.arange(0, HEAD), n_layers)


class PerHead(TritonKernel):
    """Its keys come from the configuration's attention groups and from the live model."""

    kernel = per_head
    fixed = {"out_ptr": TensorSpec("float32", (256,))}

    @dataclass(frozen=True)
    class CompileKey:
        head: int
        n_layers: int

    def dispatch(self, *, head_size, n_layers):
        return self.CompileKey(head_size, n_layers)

    def get_warmup_keys(self, config):
        n_layers = len(config.require_model().model.layers)
        assert config.require_runner().model is config.require_model()
        return [self.CompileKey(group.head_size, n_layers) for group in config.attention]

    def launch_args(self, key):
        return {"n_layers": IntClass.of(key.n_layers), "HEAD": key.head}


class OfThisModel(PerHead):
    """Made from the live model: no other process can make it."""

    name = "of_this_model"

    def get_warmup_keys(self, config):
        return [self.CompileKey(128, 3)]


@hookimpl
def jitwarm_kernels(config):
    kernels = [PerHead()]
    try:
        config.require_model()
    except NeedsModel:
        return kernels
    return [*kernels, OfThisModel()]
