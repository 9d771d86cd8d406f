"""A model's `config.json`, as Hugging Face publishes it, read into the configuration of one rank.

So the keys of a model can be listed on a machine that has neither the weights nor an engine. Inside the engine the live
layers say the same, and they hold.
"""

import dataclasses
import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jitwarm import AttentionGroup, MoELayer, NeedsModel, WarmupConfig
from jitwarm_vllm import quantization
from jitwarm_vllm.quantization import ModelConfigError

PLUGIN = "vllm_kernels"
_DTYPES = ("bfloat16", "float16", "float32")
_EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_TOP_K = ("num_experts_per_tok", "experts_per_token", "moe_top_k", "num_experts_per_token")
_KV_CACHE = {"FP8": "fp8_e4m3", "NVFP4": "nvfp4"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """`[extra.vllm_kernels]`, or `--set vllm_kernels.<name>=...`.

    Attributes:
        model: A `config.json`, or the directory that holds it; by default the configuration's. Inside an engine live layers hold;
            it tells what to build before they are there.
        tensor_parallel_size: Ranks that share each layer; 0 for the configuration's `tp_size`.
        enable_expert_parallel: Whether these ranks divide the experts instead of dividing each of them.
        dtype: Of the activations, where it is not the model's own.
        device_name: As `torch.cuda.get_device_name()` gives it on the target, e.g. `NVIDIA H200`: selects tuned configurations.
            By default the configuration's.
        moe_backend: vLLM's `--moe-backend`. Only `triton`, `auto`, taken as Triton, and `deep_gemm` have keys
            here.
        moe_route: `layer` for vLLM's own MoE layers, `functional` for callers of its function `fused_experts`.
        attention_backend: vLLM's `--attention-backend`; attention kernels have keys for `TRITON_ATTN`.
        mm_encoder_attn_backend: vLLM's `--mm-encoder-attn-backend`, likewise.
        block_size: vLLM's `--block-size`, tokens in a page of the KV cache; 0 for the groups' own. For a hybrid model the one
            that vLLM's log says, which decides the layout of the states as well.
        use_v2_model_runner: Whether vLLM runs its model runner V2, whose sampler is Triton's. Not needed inside the engine.
        max_logprobs: vLLM's `--max-logprobs`; -1 for the whole vocabulary.
        logprobs_mode: vLLM's `--logprobs-mode`.
        linear_backend: vLLM's `--linear-backend`. `auto` and `deep_gemm` take FP8 linear layers to run on DeepGEMM.
        n_multiprocessors: Of the target's device, for which DeepGEMM makes its kernels; 0 for this process's GPU, else by
            `device_name`, else for the architecture's usual part: 132 (H100 SXM, H200), 148 (B200, B300).
        max_lora_rank: vLLM's `--max-lora-rank` where LoRA is enabled, else 0.
    """

    model: str = ""
    tensor_parallel_size: int = 0
    enable_expert_parallel: bool = False
    dtype: str = ""
    device_name: str = ""
    moe_backend: str = "auto"
    moe_route: str = "layer"
    attention_backend: str = ""
    mm_encoder_attn_backend: str = ""
    block_size: int = 0
    max_lora_rank: int = 0
    use_v2_model_runner: bool = False
    max_logprobs: int = 20
    logprobs_mode: str = "raw_logprobs"
    linear_backend: str = "auto"
    n_multiprocessors: int = 0


def settings(config: WarmupConfig) -> Settings:
    """This plugin's settings.

    The configuration's `model` is not taken where the live one is there: what that says holds, and it says everything.

    Raises:
        ModelConfigError: An unknown name, or a value of another type.
    """
    given = config.for_plugin(PLUGIN)
    known = {field.name: field for field in dataclasses.fields(Settings)}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ModelConfigError(f"unknown setting {name!r} of {PLUGIN}", hint)
        if type(value) is not known[name].type:
            raise ModelConfigError(f"{PLUGIN}.{name} is {value!r}", f"give a value of type {known[name].type.__name__}")  # type: ignore[union-attr]
    chosen = Settings(**given)
    model = chosen.model or ("" if _is_live(config) else config.model)
    return dataclasses.replace(chosen, model=model, device_name=chosen.device_name or config.device_name)


def _is_live(config: WarmupConfig) -> bool:
    try:
        config.require_model()
    except NeedsModel:
        return False
    return True


def configuration(config: WarmupConfig) -> WarmupConfig:
    """`config` with its attention groups and MoE layers: the engine's own, else those of the `model` in the settings.

    Before an engine has its layers, too, the `model` says what they will be, so that its keys are built while weights are loaded.
    The layers decide when they are there; a key that they do not have was built for nothing.

    Raises:
        ModelConfigError: The settings or the model's `config.json` are wrong.
    """
    chosen = settings(config)
    if not chosen.model or (config.has_layers and (config.attention or config.moe)):
        return config
    given = {name: getattr(config, name) for name in _FROM_CONFIG}
    if config.max_model_len is not None:
        given["max_model_len"] = config.max_model_len
    if config.kv_cache_dtype != "auto":
        given["kv_cache_dtype"] = config.kv_cache_dtype
    if chosen.dtype or not config.has_layers or config.dtype != WarmupConfig.dtype:  # an engine has decided
        given["dtype"] = chosen.dtype or config.dtype
    return read(
        load(chosen.model),
        tp_size=chosen.tensor_parallel_size or config.tp_size,
        enable_expert_parallel=chosen.enable_expert_parallel or config.ep_size > 1,
        **given,
    )


# What the server says of itself, whatever the model is.
_FROM_CONFIG = (
    "max_num_batched_tokens", "max_num_seqs", "cudagraph_capture_sizes", "tp_rank", "pp_rank", "pp_size", "dp_rank", "dp_size",
    "ep_rank", "num_speculative_tokens", "model", "device_name", "extra",
)  # fmt: skip


def load(path: str) -> dict[str, Any]:
    """The document of a `config.json`, or of the directory that holds one.

    Raises:
        ModelConfigError: There is none, or it is no JSON object.
    """
    file = Path(path).expanduser()
    file = file / "config.json" if file.is_dir() else file
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        hint = "give the model's config.json, or the directory that holds it"
        raise ModelConfigError(f"the model's configuration cannot be read: {exc}", hint, str(file)) from exc
    if not isinstance(document, dict):
        raise ModelConfigError("the model's configuration is no JSON object", "give the model's config.json", str(file))
    return document


def read(
    config: Mapping[str, Any], *, tp_size: int = 1, enable_expert_parallel: bool = False, **overrides: Any
) -> WarmupConfig:
    """What one rank of a server runs with.

    Args:
        config: The document of a Hugging Face `config.json`; of a multimodal model its text part is taken.
        tp_size: Ranks in the tensor-parallel group.
        enable_expert_parallel: Whether these ranks divide the experts.
        overrides: Fields of `WarmupConfig` that the server decides, e.g. `max_num_batched_tokens`.

    Raises:
        ModelConfigError: A size is missing, is no positive number, or cannot be divided among the ranks.
    """
    model = _Model(config, tp_size, enable_expert_parallel, int(overrides.get("ep_rank", 0)))
    fields = {
        "dtype": model.dtype(),
        "kv_cache_dtype": model.kv_cache_dtype(),
        "max_model_len": model.optional("max_position_embeddings"),
        "tp_size": tp_size,
        "ep_size": tp_size if enable_expert_parallel else 1,
        "attention": tuple(dict.fromkeys(model.attention())),
        "moe": tuple(dict.fromkeys(model.moe())),
        "quantization": model.method.name,
    }
    return WarmupConfig(**{**fields, **overrides})


class _Model:
    def __init__(self, config: Mapping[str, Any], tp_size: int, expert_parallel: bool, ep_rank: int) -> None:
        if tp_size < 1:
            raise ModelConfigError(f"tp_size={tp_size}", "give the number of ranks that share each layer, 1 or more")
        self.config = {**config, **(config.get("text_config") or {})}
        self.tp_size = tp_size
        self.ep_size = tp_size if expert_parallel else 1
        self.ep_rank = ep_rank
        self.method = quantization.read(config.get("quantization_config") or self.config.get("quantization_config"))

    def optional(self, *names: str) -> int | None:
        """The first of these names that has a value, None where none has."""
        for name in names:
            value = self.config.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ModelConfigError(f"config.json: {name} is {value!r}", "a number is expected")
            return value
        return None

    def need(self, *names: str) -> int:
        value = self.optional(*names)
        if not value:
            said = f"{names[0]} is 0" if value == 0 else f"it has no {' or '.join(names)}"
            architectures = ", ".join(self.config.get("architectures") or ()) or "an unnamed architecture"
            raise ModelConfigError(
                f"config.json of {architectures}: {said}", "is it the model's own config.json, and complete?"
            )
        return value

    def share(self, size: int, name: str) -> int:
        if size % self.tp_size:
            raise ModelConfigError(
                f"config.json: {name} {size} cannot be divided among {self.tp_size} ranks", "choose another tp_size"
            )
        return size // self.tp_size

    def dtype(self) -> str:
        """As `--dtype auto` has it: the checkpoint's, and never 32 bits."""
        dtype = str(self.config.get("dtype") or self.config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
        if dtype not in _DTYPES:
            raise ModelConfigError(f"config.json: torch_dtype is {dtype!r}", f"known: {', '.join(_DTYPES)}")
        return "bfloat16" if dtype == "float32" else dtype

    def kv_cache_dtype(self) -> str:
        """As `--kv-cache-dtype auto` has it: what the checkpoint was calibrated for."""
        return _KV_CACHE.get(self.method.kv_cache.upper(), "auto")

    def attention(self) -> Iterator[AttentionGroup]:
        """One group for each layer that attends; the layers of a state-space or linear kind do not.

        None for multi-head latent attention, whose kernels are others.
        """
        kinds = list(_layer_kinds(self.config))
        if not any(kind.endswith("attention") for kind in kinds) or self.config.get("kv_lora_rank"):
            return
        n_heads = self.need("num_attention_heads")
        n_kv_heads = self.optional("num_key_value_heads") or n_heads
        head_size = self.optional("head_dim") or self.need("hidden_size") // n_heads
        for kind in kinds:
            if kind.endswith("attention"):
                yield AttentionGroup(
                    n_heads=self.share(n_heads, "num_attention_heads"),
                    n_kv_heads=max(1, n_kv_heads // self.tp_size),
                    head_size=head_size,
                    sliding_window=self.need("sliding_window") if kind == "sliding_attention" else None,
                    logits_soft_cap=float(self.config.get("attn_logit_softcapping") or 0.0),
                )

    def moe(self) -> Iterator[MoELayer]:
        """The MoE layers' shape; a published model has one."""
        n_experts = self.optional(*_EXPERT_COUNTS)
        if not n_experts or not (self.need("num_hidden_layers") and any(_is_moe(self.config))):
            return
        hidden_size = self.need("hidden_size")
        whole = self.need("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")
        part = whole if self.ep_size > 1 else self.share(whole, "the experts' intermediate size")
        yield MoELayer(
            n_experts=n_experts,
            n_local_experts=n_experts // self.ep_size + (self.ep_rank < n_experts % self.ep_size),
            top_k=self.need(*_TOP_K),
            hidden_size=hidden_size,
            intermediate_size=part,
            quantization=self.method.name,
            router_weight_on_input=str(self.config.get("model_type")).startswith("llama4"),
            **self.method.of_experts(hidden_size, part, is_divided=self.tp_size > self.ep_size),
        )


def has_dense_layer(config: Mapping[str, Any]) -> bool:
    """Whether a layer of a model's text part has a feed-forward part without experts."""
    has_experts = any(config.get(name) for name in _EXPERT_COUNTS)
    return not has_experts or not all(_is_moe(config))


def has_only_attention(config: Mapping[str, Any]) -> bool:
    """Whether every layer of a model's text part attends, and none is of a linear or state-space kind."""
    return all(kind.endswith("attention") for kind in _layer_kinds(config))


def _is_moe(config: Mapping[str, Any]) -> Iterator[bool]:
    """For each layer of a model with experts whether it has them."""
    dense = set(config.get("mlp_only_layers") or ())
    step, first = config.get("decoder_sparse_step") or 1, config.get("first_k_dense_replace") or 0
    for i in range(config.get("num_hidden_layers") or 0):
        yield i >= first and i not in dense and (i + 1) % step == 0


# Where the configuration does not say it: one layer in so many sees everything.
_PATTERNS = {"gemma2": 2, "gemma3": 6, "cohere2": 4}
# Chunks bound what a token sees, not which kernel runs; a state-space hybrid says "attention" alone.
_KINDS = {
    "attention": "full_attention",
    "hybrid": "full_attention",
    "chunked_attention": "full_attention",
    "linear_attention": "linear",
}


def _layer_kinds(config: Mapping[str, Any]) -> Iterator[str]:
    """One word per layer, e.g. `full_attention`, `sliding_attention`, `linear_attention`, `mamba`."""
    n_layers = config.get("num_hidden_layers") or 0
    if named := config.get("layer_types") or config.get("layers_block_type"):
        yield from (_KINDS.get(kind, kind) for kind in named)
    elif (indices := config.get("attn_layer_indices")) is not None:
        yield from ("full_attention" if i in indices else "mamba" for i in range(n_layers))
    elif (every := config.get("full_attention_interval")) is not None:
        yield from ("full_attention" if (i + 1) % every == 0 else "linear" for i in range(n_layers))
    elif (every := config.get("attn_layer_period")) is not None:
        offset = config.get("attn_layer_offset") or 0
        yield from ("full_attention" if i % every == offset else "mamba" for i in range(n_layers))
    elif config.get("num_attention_heads"):
        yield from _windows(config, n_layers)


def _windows(config: Mapping[str, Any], n_layers: int) -> Iterator[str]:
    """Before `layer_types`, each family had a way of its own to say which layers see a window."""
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    family = str(config.get("model_type") or "")
    default = next((every for prefix, every in _PATTERNS.items() if family.startswith(prefix)), 0)
    pattern = config.get("sliding_window_pattern") or default
    unwindowed = config.get("max_window_layers") if config.get("use_sliding_window") else 0
    for i in range(n_layers):
        is_full = not window or (pattern and (i + 1) % pattern == 0) or i < (unwindowed or 0)
        yield "full_attention" if is_full else "sliding_attention"
