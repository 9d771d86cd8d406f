"""Reads a vLLM configuration into the fields of `WarmupConfig`.

By attribute, with a default for each, so that what one version of vLLM lacks changes nothing else; nothing is imported. No
model is known by name: layers are recognized by what they have.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any


def read(vllm_config: Any, rank: int) -> dict[str, Any]:
    """The fields that `vllm_config` decides, as plain data.

    Args:
        vllm_config: vLLM's `VllmConfig`.
        rank: The rank within the engine.
    """
    dtype = str(_get(vllm_config, "model_config.dtype", "bfloat16")).removeprefix("torch.")
    sizes = _get(vllm_config, "compilation_config.cudagraph_capture_sizes", None) or ()
    return {
        "dtype": dtype,
        "kv_cache_dtype": str(_get(vllm_config, "cache_config.cache_dtype", "auto")).removeprefix("torch."),
        "max_num_batched_tokens": _get(vllm_config, "scheduler_config.max_num_batched_tokens", 8192),
        "max_num_seqs": _get(vllm_config, "scheduler_config.max_num_seqs", 256),
        "max_model_len": _get(vllm_config, "model_config.max_model_len", None),
        "cudagraph_capture_sizes": tuple(sorted(sizes)),
        "num_speculative_tokens": _get(vllm_config, "speculative_config.num_speculative_tokens", 0),
        "quantization": _text(_get(vllm_config, "model_config.quantization", None)),
        "model": _model(_get(vllm_config, "model_config", None)),
        "attention": _distinct(_attention(_layers(vllm_config), _get(vllm_config, "cache_config.block_size", 16))),
        "moe": _distinct(_moe(_layers(vllm_config), vllm_config)),
        **_ranks(_get(vllm_config, "parallel_config", None), rank),
    }


def _model(model_config: Any) -> str:
    """The model's directory, or the `config.json` that Hugging Face's cache has of it; empty where that is not what runs."""
    name = _get(model_config, "hf_config_path", None) or _get(model_config, "model", None)
    if not isinstance(name, str) or _get(model_config, "hf_overrides", None):
        return ""
    if (Path(name) / "config.json").is_file():
        return str(Path(name).absolute())
    find = getattr(sys.modules.get("huggingface_hub"), "try_to_load_from_cache", None)
    with suppress(Exception):  # a name of another kind: a bucket's address, say
        found = find(name, "config.json", revision=_get(model_config, "revision", None)) if find else None
        return found if isinstance(found, str) else ""
    return ""


def _ranks(parallel: Any, rank: int) -> dict[str, int]:
    """Ranks are laid out with tensor parallelism innermost, then context, then pipeline; experts span data and tensor ranks."""
    tp = _get(parallel, "tensor_parallel_size", 1)
    pp = _get(parallel, "pipeline_parallel_size", 1)
    dp = _get(parallel, "data_parallel_size", 1)
    context = _get(parallel, "prefill_context_parallel_size", 1)
    dp_rank = _get(parallel, "data_parallel_index", None)
    dp_rank = _get(parallel, "data_parallel_rank", 0) if dp_rank is None else dp_rank
    stage = tp * context
    ranks = {
        "tp_rank": rank % tp, "tp_size": tp, "pp_rank": rank // stage % pp, "pp_size": pp, "dp_rank": dp_rank, "dp_size": dp,
    }  # fmt: skip
    if _get(parallel, "enable_expert_parallel", default=False):
        ranks |= {"ep_rank": dp_rank * stage + rank % stage, "ep_size": dp * stage}
    return ranks


def _layers(vllm_config: Any) -> list[Any]:
    return list((_get(vllm_config, "compilation_config.static_forward_context", None) or {}).values())


def _attention(layers: Iterable[Any], block_size: int) -> Iterator[dict[str, Any]]:
    for layer in layers:
        sizes = [getattr(layer, name, None) for name in ("num_heads", "num_kv_heads", "head_size")]
        if not all(isinstance(size, int) for size in sizes):
            continue
        yield {
            "n_heads": sizes[0],
            "n_kv_heads": sizes[1],
            "head_size": sizes[2],
            "sliding_window": _window(getattr(layer, "sliding_window", None)),
            "logits_soft_cap": float(_get(layer, "impl.logits_soft_cap", None) or 0.0),
            "backend": _backend_name(layer),
            **_variant(layer),
            "block_size": _page(layer, block_size),
        }


def _variant(layer: Any) -> dict[str, Any]:
    """What else makes a layer's attention another one than its neighbour's."""
    kind = _get(layer, "attn_type", "decoder")
    return {
        "kind": str(getattr(kind, "value", kind)),  # an enumeration in some versions
        "kv_cache_dtype": str(_get(layer, "impl.kv_cache_dtype", "")).removeprefix("torch."),
        "sinks_dtype": str(_get(layer, "impl.sinks.dtype", "")).removeprefix("torch."),
        "has_alibi": _get(layer, "impl.alibi_slopes", None) is not None,
        "shares_kv": _get(layer, "impl.kv_sharing_target_layer_name", None) is not None,
        "chunk_lookback": _get(layer, "impl.chunk_lookback", -1),
    }


def _page(layer: Any, block_size: int) -> int:
    """Tokens in a page: of the layer's own cache, [blocks, heads, tokens, elements], where it has one already."""
    shape = tuple(_get(layer, "kv_cache.shape", ()))
    return int(shape[2]) if len(shape) == 4 and shape[1] == layer.num_kv_heads else block_size  # noqa: PLR2004


def _window(window: Any) -> int | None:
    """A layer holds a number of tokens, or None or -1 for none."""
    return window if isinstance(window, int) and window > 0 else None


def _backend_name(layer: Any) -> str:
    get_name = _get(layer, "attn_backend.get_name", None)
    return str(get_name()) if callable(get_name) else ""


def _moe(layers: Iterable[Any], vllm_config: Any) -> Iterator[dict[str, Any]]:
    quantization = _get(vllm_config, "quant_config", None)
    method = getattr(quantization, "get_name", None)
    for layer in layers:
        config = getattr(layer, "moe_config", None)
        n_experts = getattr(config, "num_experts", None)
        if not isinstance(n_experts, int):
            continue
        quant = _get(layer, f"{_EXPERTS_OF}.quant_config", None)
        block = _get(quant, "block_shape", None) or (0, 0)
        yield {
            "n_experts": n_experts,
            "n_local_experts": _get(config, "num_local_experts", n_experts),
            "top_k": _get(config, "experts_per_token", 1),
            "hidden_size": _get(config, "hidden_dim", 0),
            "intermediate_size": _get(config, "intermediate_size_per_partition", 0),
            "quantization": _text(method()) if callable(method) else None,
            # Weight-only quantization says its groups as blocks without rows.
            "group_size": _get(quantization, "group_size", -1) if block[0] or not block[1] else block[1],
            "scheme": next((scheme for scheme in _SCHEMES if _get(quant, f"use_{scheme}", default=False)), ""),
            "has_zero_points": _get(quant, "w1_zp", None) is not None,
            "block_n": block[0],
            "block_k": block[1] if block[0] else 0,
            "activation_scale": _activation_scale(quant, block),
            "is_gated": _get(config, "is_act_and_mul", default=True),
            "has_bias": _get(quant, "w1_bias", None) is not None,
            "router_weight_on_input": _get(layer, "routed_experts.apply_router_weight_on_input", default=False),
            "experts": _class_name(_get(layer, _EXPERTS_OF, None)),
        }


# Where a layer keeps what runs it, and the kinds of quantization of which that speaks.
_EXPERTS_OF = "routed_experts.quant_method.moe_kernel.fused_experts"
_SCHEMES = (
    "int4_w4a16",
    "int8_w8a16",
    "fp8_w8a8",
    "fp8_w8a16",
    "int8_w8a8",
    "nvfp4_w4a16",
    "nvfp4_w4a4",
    "mxfp4_w4a16",
)


def _activation_scale(quant: Any, block: Sequence[int]) -> str:
    if not _get(quant, "use_fp8_w8a8", default=False):
        return ""
    if block[0]:
        return "block"
    return "token" if _get(quant, "per_act_token_quant", default=False) else "tensor"


def _class_name(obj: Any) -> str:
    return "" if obj is None else type(obj).__name__


def _distinct(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without repeats: a deep model has the same layer many times."""
    return list({tuple(record.items()): record for record in records}.values())


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _get(obj: Any, path: str, default: Any) -> Any:
    """`obj.a.b`, or the default where one of them is missing or None on the way."""
    for name in path.split("."):
        obj = getattr(obj, name, None)
        if obj is None:
            return default
    return obj
