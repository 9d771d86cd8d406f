"""LoRA's two GEMMs over all slices of a projection: `_lora_shrink_kernel` to the rank, `_lora_expand_kernel` back from it.

Declared for the projections of a decoder layer, with one rank for all adapters, as vLLM pads them to `max_lora_rank`. Adapters of
the embedding, the head and of experts are others.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jitwarm import IntClass, IntRange, JitKernel, TensorSpec, Unresolved, WarmupConfig, current_target, trace_dispatch
from jitwarm_vllm import models
from jitwarm_vllm.declaring import VllmKernel, declared, entries
from jitwarm_vllm.platform import answering_for

_FEW_TOKENS = 128  # below, vLLM's default configuration splits the sum further


@dataclass(frozen=True)
class Projection:
    """One linear layer on this rank: elements that go in, and that come out of each of its slices."""

    inputs: int
    outputs: tuple[int, ...]


def projections(config: WarmupConfig) -> Iterator[Projection]:
    """Those of an attention layer and of a dense feed-forward layer.

    Raises:
        ModelConfigError: The settings or the model's `config.json` are wrong.
    """
    chosen = models.settings(config)
    document = models.load(_model(config))
    text = {**document, **(document.get("text_config") or {})}
    hidden, n_ranks = int(text["hidden_size"]), chosen.tensor_parallel_size or config.tp_size
    for group in models.configuration(config).attention:
        if group.kind != "decoder":
            continue
        query, value = group.n_heads * group.head_size, group.n_kv_heads * group.head_size
        yield Projection(hidden, (query, value, value))
        yield Projection(query, (hidden,))
    if text.get("intermediate_size"):
        inner = int(text["intermediate_size"]) // n_ranks
        yield Projection(hidden, (inner, inner))
        yield Projection(inner, (hidden,))


def _model(config: WarmupConfig) -> str:
    """Also where the live model is there: its adapters are not."""
    return models.settings(config).model or config.model


class LoraKernel(VllmKernel):
    """What both have in common."""

    options = ("num_warps", "num_ctas", "num_stages")

    @classmethod
    def is_reached(cls, config: WarmupConfig) -> bool:
        """Whether LoRA is configured: the setting `max_lora_rank`, and a model."""
        return models.settings(config).max_lora_rank > 0 and bool(_model(config))

    def get_warmup_keys(self, config: WarmupConfig) -> list[Any]:
        """Each projection, for every number of tokens."""
        if not self.is_reached(config):
            return []
        keys: dict[str, Any] = {}
        for projection in dict.fromkeys(projections(config)):
            traced = trace_dispatch(
                self.dispatch,
                projection=projection,
                rank=models.settings(config).max_lora_rank,
                num_tokens=IntRange(1, config.max_num_batched_tokens + 1),
                dtype=models.configuration(config).dtype,
                **self.chosen(config, projection),
            )
            keys |= {repr(key): key for key in traced}
        return list(keys.values())

    def chosen(self, config: WarmupConfig, projection: Projection) -> dict[str, Any]:
        """What vLLM's own functions choose for the target: the configurations of few and of many tokens, and overlap (PDL).

        Raises:
            Unresolved: Configurations were tuned for a device; this declaration knows the default ones.
        """
        from vllm import envs

        if envs.VLLM_TUNED_CONFIG_FOLDER or envs.VLLM_BATCH_INVARIANT:
            raise Unresolved(
                "LoRA's tuned and batch-invariant configurations are not declared",
                "unset VLLM_TUNED_CONFIG_FOLDER and VLLM_BATCH_INVARIANT, or let them compile",
            )
        with answering_for(current_target()):
            configs = [self._config(config, projection, n) for n in (_FEW_TOKENS - 1, _FEW_TOKENS)]
            has_pdl = self.module.supports_pdl.__wrapped__() and bool(envs.VLLM_LORA_ENABLE_DUAL_STREAM)
        return {"few": configs[0], "many": configs[1], "has_pdl": has_pdl}

    def _config(self, config: WarmupConfig, projection: Projection, num_tokens: int) -> tuple[int, ...]:
        raise NotImplementedError


class LoraShrink(LoraKernel):
    """From the projection's input to the rank, for all slices."""

    name = "lora_shrink"
    place = ("vllm.lora.ops.triton_ops.lora_shrink_op", "_lora_shrink_kernel")
    # Batch-invariant mode alone stores partial sums.
    fixed = {"STORE_PARTIALS": False, "output_split_stride": 0, "PARTIAL_N": 0, "PARTIAL_K": 0}  # noqa: RUF012
    derived = {  # noqa: RUF012 - never mutated
        "input_d0_stride": ("k",), "lora_d1_stride": ("k",), "output_d1_stride": ("n",), "USE_GDC": ("launch_pdl",),
        "input_d1_stride": (), "lora_d2_stride": (), "output_d2_stride": (),
    }  # fmt: skip

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names, case aside."""

        dtype: str
        m: IntClass
        n: IntClass
        k: IntClass
        lora_d0_stride: IntClass
        output_d0_stride: IntClass
        block_m: int
        block_n: int
        block_k: int
        even_k: bool
        split_k: int
        group_size_m: int
        slice_num: int
        launch_pdl: bool
        num_warps: int
        num_ctas: int
        num_stages: int

    def dispatch(
        self,
        *,
        projection: Projection,
        rank: int,
        num_tokens: int,
        dtype: str,
        few: tuple[int, ...],
        many: tuple[int, ...],
        has_pdl: bool,
    ) -> CompileKey:
        """What `_lora_shrink` launches."""
        chosen = few if num_tokens < _FEW_TOKENS else many
        block_m, block_n, block_k, split_k, group, warps, ctas, stages = chosen
        return self.CompileKey(
            dtype=dtype,
            m=IntClass.of(num_tokens),
            n=IntClass.of(rank),
            k=IntClass.of(projection.inputs),
            lora_d0_stride=IntClass.of(rank * projection.inputs),
            output_d0_stride=IntClass.of(rank * num_tokens),
            block_m=block_m,
            block_n=block_n,
            block_k=block_k,
            even_k=projection.inputs % (block_k * split_k) == 0,
            split_k=split_k,
            group_size_m=group,
            slice_num=len(projection.outputs),
            launch_pdl=has_pdl,
            num_warps=warps,
            num_ctas=ctas,
            num_stages=stages,
        )

    def _config(self, config: WarmupConfig, projection: Projection, num_tokens: int) -> tuple[int, ...]:
        found = self.module.get_lora_op_configs(
            "shrink", max_loras=1, batch=num_tokens, hidden_size=projection.inputs,
            rank=models.settings(config).max_lora_rank, num_slices=len(projection.outputs),
        )  # fmt: skip
        names = ("block_m", "block_n", "block_k", "split_k", "group_size_m", "num_warps", "num_ctas", "num_stages")
        return tuple(found[name] for name in names)

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes; the weights of several slices come as a table of addresses."""
        indices = TensorSpec("int32", ("tokens",))
        return entries(
            self,
            {
                **self.named(key),
                "input_ptr": TensorSpec(key.dtype, ("tokens", "inputs")),
                "lora_ptr": TensorSpec("uint64" if key.slice_num > 1 else key.dtype, ("weights",)),
                "out_ptr": TensorSpec("float32", ("slices", "tokens", "rank")),
                "token_indices_sorted_by_lora_ids": indices,
                "num_tokens_per_lora": indices,
                "lora_token_start_loc": indices,
                "lora_ids": indices,
                "scaling": 1.0,
                "input_d0_stride": key.k,
                "input_d1_stride": 1,
                "lora_d1_stride": key.k,
                "lora_d2_stride": 1,
                "output_d1_stride": key.n,
                "output_d2_stride": 1,
                "USE_GDC": key.launch_pdl,
            },
        )


class LoraExpand(LoraKernel):
    """From the rank to the outputs of all slices, added to what is there."""

    name = "lora_expand"
    place = ("vllm.lora.ops.triton_ops.lora_expand_op", "_lora_expand_kernel")
    fixed = {"ADD_INPUTS": True, "CAST_TYPE": True}  # noqa: RUF012 - the shrunk values are fp32, and are added
    derived = {  # noqa: RUF012 - never mutated
        "input_d1_stride": ("k",), "ls_d1_ptr": ("k", "same_stride"), "output_hs_ptr": ("n", "same_stride"),
        "slice_start_loc": ("slice_num",), "USE_GDC": ("launch_pdl",),
        "input_d2_stride": (), "ls_d2_ptr": ("same_stride",), "output_d1_stride": (),
    }  # fmt: skip

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names, case aside; `ls_d0` is a stride, or a table of strides."""

        dtype: str
        m: IntClass
        n: IntClass
        k: IntClass
        input_d0_stride: IntClass
        ls_d0_ptr: IntClass
        output_d0_stride: IntClass
        block_m: int
        block_n: int
        block_k: int
        even_k: bool
        slice_num: int
        same_stride: bool
        launch_pdl: bool
        num_warps: int
        num_ctas: int
        num_stages: int

    def dispatch(
        self,
        *,
        projection: Projection,
        rank: int,
        num_tokens: int,
        dtype: str,
        few: tuple[int, ...],
        many: tuple[int, ...],
        has_pdl: bool,
    ) -> CompileKey:
        """What `_lora_expand` launches."""
        chosen = few if num_tokens < _FEW_TOKENS else many
        block_m, block_n, block_k, warps, ctas, stages = chosen
        widest, is_even = max(projection.outputs), len(set(projection.outputs)) == 1
        return self.CompileKey(
            dtype=dtype,
            m=IntClass.of(num_tokens),
            n=IntClass.of(widest),
            k=IntClass.of(rank),
            input_d0_stride=IntClass.of(num_tokens * rank),
            # A table where slices differ: one class stands for it, so that the key does not vary.
            ls_d0_ptr=IntClass.of(widest * rank) if is_even else IntClass.MULTIPLE_OF_16,
            output_d0_stride=IntClass.of(sum(projection.outputs)),
            block_m=block_m,
            block_n=block_n,
            block_k=block_k,
            even_k=rank % block_k == 0,
            slice_num=len(projection.outputs),
            same_stride=is_even,
            launch_pdl=has_pdl,
            num_warps=warps,
            num_ctas=ctas,
            num_stages=stages,
        )

    def _config(self, config: WarmupConfig, projection: Projection, num_tokens: int) -> tuple[int, ...]:
        found = self.module.get_lora_op_configs(
            "expand", max_loras=1, batch=num_tokens, hidden_size=max(projection.outputs),
            rank=models.settings(config).max_lora_rank, num_slices=len(projection.outputs), add_inputs=True,
        )  # fmt: skip
        # The function that asks for the platform does so to keep Hopper from pipelining a mixed-dtype product.
        platform = getattr(self.module, "current_platform", None)
        is_hopper = platform is not None and platform.is_cuda() and platform.is_device_capability(90)
        stages = 1 if is_hopper else found["num_stages"]
        return (*(found[name] for name in ("block_m", "block_n", "block_k", "num_warps", "num_ctas")), stages)

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes; what differs among slices comes as a table."""
        indices, table = TensorSpec("int32", ("tokens",)), TensorSpec("int64", ("slices",))
        addresses = TensorSpec("uint64", ("slices",))
        return entries(
            self,
            {
                **self.named(key),
                "input_ptr": TensorSpec("float32", ("slices", "tokens", "rank")),
                "lora_ptr": addresses if key.slice_num > 1 else TensorSpec(key.dtype, ("weights",)),
                "out_ptr": TensorSpec(key.dtype, ("tokens", "outputs")),
                "token_indices_sorted_by_lora_ids": indices,
                "num_tokens_per_lora": indices,
                "lora_token_start_loc": indices,
                "lora_ids": indices,
                "slice_start_loc": addresses if key.slice_num > 1 else 0,
                "input_d1_stride": key.k,
                "input_d2_stride": 1,
                "ls_d0_ptr": key.ls_d0_ptr if key.same_stride else table,
                "ls_d1_ptr": key.k if key.same_stride else table,
                "ls_d2_ptr": 1 if key.same_stride else table,
                "output_d1_stride": 1,
                "output_hs_ptr": key.n if key.same_stride else table,
                "USE_GDC": key.launch_pdl,
            },
        )


def kernels() -> list[JitKernel]:
    """Both declarations, or why not."""
    return [declared(LoraShrink), declared(LoraExpand)]
