"""`WarmupConfig`: what the running configuration says, as plain data.

Equal to its JSON, so that it crosses a process, a file or a host unchanged. Live objects (the model, its runner) are no
fields: they cannot be written down. Where there are any, `LiveObjects` lends them to whoever lists keys.
"""

from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self

from jitwarm.contract import from_vllm
from jitwarm.errors import NeedsModel

_LIVE: ContextVar["LiveObjects"] = ContextVar("jitwarm_live_objects")


class LiveObjects(AbstractContextManager[None]):
    """While entered, `WarmupConfig.require_model()` and `require_runner()` answer with these objects.

    Args:
        model: The loaded model of this rank.
        runner: What runs it.
    """

    def __init__(self, model: Any, runner: Any = None) -> None:
        self.model = model
        self.runner = runner

    def __enter__(self) -> None:
        self._token = _LIVE.set(self)

    def __exit__(self, *exc: object) -> None:
        _LIVE.reset(self._token)


@dataclass(frozen=True)
class AttentionGroup:
    """Layers that share one attention specialization.

    Attributes:
        n_heads: Query heads on this rank.
        n_kv_heads: Key/value heads on this rank.
        head_size: Elements per head.
        sliding_window: Tokens, or None for full attention.
        logits_soft_cap: 0.0 for none.
        backend: The attention backend's name, if it is chosen.
        kind: `"decoder"`, `"encoder"`, `"encoder_only"`, `"encoder_decoder"` (cross attention), or `"vit"` (a vision encoder
            without a KV cache).
        kv_cache_dtype: The layers' own, where it is not `WarmupConfig.kv_cache_dtype`.
        block_size: Tokens in a page of the KV cache.
        sinks_dtype: Of the attention sinks, a torch name; empty for none.
        has_alibi: Whether ALiBi slopes are added.
        shares_kv: Whether the layers read another layer's KV cache.
        chunk_lookback: Chunks before the own one that are seen, in chunked attention; -1: not chunked.
    """

    n_heads: int
    n_kv_heads: int
    head_size: int
    sliding_window: int | None = None
    logits_soft_cap: float = 0.0
    backend: str = ""
    kind: str = "decoder"
    kv_cache_dtype: str = ""
    block_size: int = 16
    sinks_dtype: str = ""
    has_alibi: bool = False
    shares_kv: bool = False
    chunk_lookback: int = -1


@dataclass(frozen=True)
class MoELayer:
    """MoE layers of one shape on this rank. Sizes in elements.

    Attributes:
        n_experts: Routed experts of the model.
        n_local_experts: Those that this rank holds; fewer than `n_experts` with expert parallelism.
        top_k: Experts per token.
        hidden_size: Of the model.
        intermediate_size: Of one expert, the part that this rank holds.
        quantization: The method's name in the checkpoint, or None.
        group_size: Elements per scale of weight-only quantization, -1 for none.
        scheme: What the weights and activations of a launch are: `int4_w4a16`, `int8_w8a16`, `fp8_w8a8` or another name;
            empty for unquantized layers, or where it is not known.
        has_zero_points: Whether the quantized weights have zero points.
        block_n: Rows of a weight that share one scale (block-wise fp8), 0 for none.
        block_k: Columns of a weight that share one scale, 0 for none.
        activation_scale: Of fp8: `block`, `token` or `tensor`, empty for none.
        is_gated: Whether the first GEMM makes gate and up together.
        has_bias: Whether the experts have a bias.
        router_weight_on_input: Whether tokens are weighted before the experts instead of after them.
        experts: The class of the engine that runs the layer, empty where none is chosen.
    """

    n_experts: int
    n_local_experts: int
    top_k: int
    hidden_size: int
    intermediate_size: int
    quantization: str | None = None
    group_size: int = -1
    scheme: str = ""
    has_zero_points: bool = False
    block_n: int = 0
    block_k: int = 0
    activation_scale: str = ""
    is_gated: bool = True
    has_bias: bool = False
    router_weight_on_input: bool = False
    experts: str = ""


@dataclass(frozen=True)
class WarmupConfig:
    """The configuration whose reachable keys are to be warm. Every field has a default.

    Attributes:
        dtype: The model's activation dtype, a torch name.
        kv_cache_dtype: `"auto"` means `dtype`.
        max_num_batched_tokens: Tokens in one step, at most.
        max_num_seqs: Sequences in one step, at most.
        max_model_len: Tokens in one sequence, at most; None where unknown.
        cudagraph_capture_sizes: Token counts that are captured, ascending.
        tp_rank: Rank of this process in its tensor-parallel group; likewise `pp_`, `dp_`, `ep_`.
        tp_size: Size of that group.
        num_speculative_tokens: Draft tokens per step.
        attention: The distinct attention groups of this rank.
        moe: The distinct MoE layer shapes of this rank.
        quantization: The method's name, or None.
        model: The model's `config.json`, or the directory that holds it: it says what the layers will be, also before they are
            known. Empty where there is none, or where it is not what runs.
        device_name: As `torch.cuda.get_device_name()` gives it, e.g. `NVIDIA H200`; empty where unknown.
        has_layers: Whether `attention` and `moe` are known. Where they are not, because no model is loaded yet, a kernel that
            asks for them waits until one is.
        extra: Each plugin's own values, by plugin name.
    """

    dtype: str = "bfloat16"
    kv_cache_dtype: str = "auto"
    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 256
    max_model_len: int | None = None
    cudagraph_capture_sizes: tuple[int, ...] = ()
    tp_rank: int = 0
    tp_size: int = 1
    pp_rank: int = 0
    pp_size: int = 1
    dp_rank: int = 0
    dp_size: int = 1
    ep_rank: int = 0
    ep_size: int = 1
    num_speculative_tokens: int = 0
    attention: tuple[AttentionGroup, ...] = ()
    moe: tuple[MoELayer, ...] = ()
    quantization: str | None = None
    model: str = ""
    device_name: str = ""
    has_layers: bool = True
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)

    def for_plugin(self, name: str) -> dict[str, Any]:
        """The values that were given to one plugin (`[extra.<name>]`, `--set <name>.x=...`); empty if none were."""
        return dict(self.extra.get(name, {}))

    @classmethod
    def from_vllm(
        cls,
        vllm_config: Any,
        rank: int,
        extra: dict[str, dict[str, Any]] | None = None,
        *,
        device_name: str = "",
        has_layers: bool = True,
    ) -> Self:
        """What a vLLM configuration says, as far as it says it; what is not there keeps its default.

        Attention groups and MoE layers are read from the layers that vLLM registers while it loads the model, so they are
        empty before. Reads attributes, imports nothing; whether the model's `config.json` is on this machine is looked up.

        Args:
            vllm_config: vLLM's `VllmConfig`, 0.29 or later.
            rank: This process's rank within its engine, as vLLM counts it (`worker.rank`).
            extra: Each plugin's own values.
            device_name: Of this process's GPU, which the configuration does not know.
            has_layers: Whether the model is loaded.
        """
        fields = from_vllm.read(vllm_config, rank)
        fields["attention"] = tuple(AttentionGroup(**group) for group in fields["attention"])
        fields["moe"] = tuple(MoELayer(**layer) for layer in fields["moe"])
        return cls(**fields, device_name=device_name, has_layers=has_layers, extra=dict(extra or {}))

    def for_kernels(self) -> "WarmupConfig":
        """What kernels are asked with: this, or where the layers are not known yet, the same without an answer for them."""
        return self if self.has_layers else _WithoutLayers(**vars(self))

    @property
    def is_first_pp_rank(self) -> bool:
        """Whether this rank holds the first layers."""
        return self.pp_rank == 0

    @property
    def is_last_pp_rank(self) -> bool:
        """Whether this rank holds the last layers, the head and the sampler."""
        return self.pp_rank == self.pp_size - 1

    def require_model(self) -> Any:
        """The live model of this rank.

        Raises:
            NeedsModel: There is none in this process; the kernel's keys become `unresolved`.
        """
        return self._live().model

    def require_runner(self) -> Any:
        """The live model runner, with its attention groups and KV-cache configuration.

        Raises:
            NeedsModel: There is none in this process; the kernel's keys become `unresolved`.
        """
        return self._live().runner

    def _live(self) -> LiveObjects:
        try:
            return _LIVE.get()
        except LookupError:
            raise NeedsModel(
                "needs the model", "this kernel takes its keys from live layers: it is warmed inside the engine"
            ) from None


_OF_LAYERS = frozenset({"attention", "moe"})


class _WithoutLayers(WarmupConfig):
    """A configuration before the model is loaded. Two equal ones list equal keys, so keys that it gives can be built already."""

    def __getattribute__(self, name: str) -> Any:
        if name in _OF_LAYERS:
            raise NeedsModel(
                f"needs the model's layers: it asked for config.{name}", "it is warmed when they are there"
            )
        return super().__getattribute__(name)

    def __repr__(self) -> str:
        return "WarmupConfig(before the model is loaded)"
