"""Which GEMMs of a configuration vLLM gives to DeepGEMM: FP8 weights with a scale for each block of 128 x 128 elements."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jitwarm import MoELayer, NeedsModel, Unresolved, WarmupConfig
from jitwarm_vllm import models, quantization
from jitwarm_vllm.moe_layers import gemm, n_tokens

_BLOCK = (128, 128)
_N_MULTIPLE, _K_MULTIPLE = 64, 128  # vLLM gives linear layers of other shapes to other kernels
# Methods whose checkpoints may have such weights: only then a missing model is worth waiting for.
_METHODS = ("fp8", "compressed-tensors", "modelopt")
_EXPERTS = ("DeepGemmExperts", "TritonOrDeepGemmExperts")
# FlashInfer's kernel takes fewer rows than these, where vLLM has both.
_FLASHINFER, _FEW_ROWS = "FlashInferFp8DeepGEMMDynamicBlockScaledKernel", 32


@dataclass(frozen=True)
class Gemm:
    """A GEMM of a layer on this rank, and the numbers of tokens with which it is called; or the scales of its weight.

    Attributes:
        call: The host function, as `deep_gemm_calls` names it: `linear`, `experts`, or `scales` when the weights are loaded.
        n: Rows of a weight.
        k: Its columns.
        groups: Weights: experts of this rank, 1 for a linear layer.
        top_k: Experts per token.
        is_first: Whether it is the first GEMM of experts, whose input is made by the permutation.
        tokens: The fewest and the most.
    """

    call: str
    n: int
    k: int
    groups: int
    top_k: int
    is_first: bool
    tokens: tuple[int, int]


def linear_gemms(config: WarmupConfig) -> list[Gemm]:
    """Of the linear layers, each shape once: the engine's own, else those of the `model` in the settings.

    Raises:
        ModelConfigError: The settings or the model's `config.json` are wrong.
        NeedsModel: The layers are not known yet.
        Unresolved: The projections of this model are known in an engine only.
    """
    return _with_scales(_linear(config))


def experts_gemms(config: WarmupConfig) -> list[Gemm]:
    """Of the experts, likewise. An engine's layers say what runs them; offline the setting `moe_backend` does.

    Raises:
        ModelConfigError: The settings or the model's `config.json` are wrong.
        NeedsModel: The layers are not known yet.
    """
    return _with_scales(_experts(config))


def _with_scales(found: Iterator[Gemm]) -> list[Gemm]:
    of_layers = list(dict.fromkeys(found))
    weights = [Gemm("scales", gemm.n, gemm.k, gemm.groups, 1, is_first=False, tokens=(1, 1)) for gemm in of_layers]
    return [*dict.fromkeys(weights), *of_layers]


def _linear(config: WarmupConfig) -> Iterator[Gemm]:
    chosen = models.settings(config)
    if chosen.linear_backend not in ("auto", "deep_gemm"):
        return
    try:
        live = config.require_model()
    except NeedsModel:
        if chosen.model:
            yield from _published(config)
        elif config.quantization in _METHODS:
            raise
    else:
        yield from linear_gemms_of(live, config.max_num_batched_tokens)


def _experts(config: WarmupConfig) -> Iterator[Gemm]:
    is_chosen = models.settings(config).moe_backend == "deep_gemm"
    for layer in dict.fromkeys(models.configuration(config).moe):
        is_run = layer.experts in _EXPERTS or (not layer.experts and is_chosen)
        if is_run and (layer.block_n, layer.block_k) == _BLOCK:
            yield _of_experts(layer, config, is_down=False)
            yield _of_experts(layer, config, is_down=True)


def _of_experts(layer: MoELayer, config: WarmupConfig, *, is_down: bool) -> Gemm:
    shape = gemm(layer, is_down=is_down)
    return Gemm("experts", shape.n, shape.k, layer.n_local_experts, layer.top_k, not is_down, (1, n_tokens(config)))


def _of_linear(n: int, k: int, most: int, fewest: int = 1) -> Gemm:
    return Gemm("linear", n, k, 1, 1, is_first=False, tokens=(fewest, max(fewest, most)))


def linear_gemms_of(model: Any, most: int) -> Iterator[Gemm]:
    """By the mark that DeepGEMM's linear kernel leaves on each layer whose weights it has prepared."""
    for module in model.modules():
        provider = getattr(module, "deep_gemm_warmup_provider", None)
        if provider is not None:
            n, k = provider.get_deep_gemm_warmup_weights(module)[0].shape
            linear = getattr(getattr(module, "quant_method", None), "fp8_linear", None)
            yield _of_linear(int(n), int(k), most, _FEW_ROWS if type(linear).__name__ == _FLASHINFER else 1)


def _published(config: WarmupConfig) -> Iterator[Gemm]:
    document = models.load(models.settings(config).model)
    text = {**document, **(document.get("text_config") or {})}
    method = quantization.read(document.get("quantization_config") or text.get("quantization_config"))
    read = models.configuration(config)
    if method.block != _BLOCK or read.dtype != "bfloat16":
        return
    if text.get("kv_lora_rank") or not models.has_only_attention(text):
        raise Unresolved(
            "the projections of latent and of linear attention are not read from config.json",
            "they are taken from the layers, in an engine",
        )
    for n, k in _projections(text, read):
        if n % _N_MULTIPLE == 0 and k % _K_MULTIPLE == 0:
            yield _of_linear(n, k, config.max_num_batched_tokens)


def _projections(text: Mapping[str, Any], read: WarmupConfig) -> Iterator[tuple[int, int]]:
    """Rows and columns of the weights: query, key and value in one, the way back, gate and up in one, down."""
    hidden = int(text["hidden_size"])
    for group in read.attention:
        if group.kind == "decoder":
            query = group.n_heads * group.head_size
            yield query + 2 * group.n_kv_heads * group.head_size, hidden
            yield hidden, query
    for whole in _feed_forward(text):
        inner = whole // read.tp_size
        yield 2 * inner, hidden
        yield hidden, inner


def _feed_forward(text: Mapping[str, Any]) -> Iterator[int]:
    """Elements inside of dense layers, and of experts that every token passes."""
    if models.has_dense_layer(text) and text.get("intermediate_size"):
        yield int(text["intermediate_size"])
    if shared := text.get("shared_expert_intermediate_size"):
        yield int(shared)
    elif shared := text.get("n_shared_experts"):
        yield int(shared) * int(text["moe_intermediate_size"])
