"""Configurations of published models, and how vLLM's host functions are called for them. Imported by `attention_program`."""

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import published
import torch
from sampler_cases import Sampler

from jitwarm import AttentionGroup
from jitwarm_vllm import attention, lora, models, prefill, real
from jitwarm_vllm.platform import answering_for

SIZES = (1, 2, 4, 8, *range(16, 257, 8))
TRITON = {"vllm_kernels": {"attention_backend": "TRITON_ATTN", "mm_encoder_attn_backend": "TRITON_ATTN"}}


def model(document, tp_size=1, **overrides):
    """One rank's configuration, on the Triton backend."""
    given = {"max_num_batched_tokens": 2048, "max_num_seqs": 256, "cudagraph_capture_sizes": SIZES, "extra": TRITON}
    return models.read(document, tp_size=tp_size, **{**given, **overrides})


def meta(*shape, dtype=torch.bfloat16):
    return torch.empty(*shape, dtype=dtype, device="meta")


def split_qkv(tokens, heads, kv_heads, size, dtype, is_fused):
    """Query, key, value: views of one projection, or tensors of their own."""
    if not is_fused:
        return tuple(meta(tokens, h, size, dtype=dtype) for h in (heads, kv_heads, kv_heads))
    widths = [heads * size, kv_heads * size, kv_heads * size]
    parts = meta(tokens, sum(widths), dtype=dtype).split(widths, dim=-1)
    return tuple(part.view(tokens, -1, size) for part in parts)


def batch(rng, config):
    """A batch that the scheduler can make: lengths of its queries."""
    n_most = config.max_num_batched_tokens
    kind = rng.random()
    n_seqs = min(rng.choice([1, 2, 3, 15, 16, 17, 32, 48, rng.randint(1, config.max_num_seqs)]), config.max_num_seqs)
    if kind < 0.35:
        lengths = [1] * n_seqs
    elif kind < 0.7:
        longest = rng.randint(1, 9)
        lengths = [longest, *(rng.randint(1, longest) for _ in range(n_seqs - 1))]
    else:
        lengths = [rng.randint(1, max(1, n_most // n_seqs)) for _ in range(n_seqs)]
    while sum(lengths) > n_most:
        lengths.pop()
    return lengths


def ends(config):
    """Where regions of the dispatch end: sequences and lengths around each threshold."""
    counts = sorted({n + d for n in (1, 2, 4, 8, 16, 32, 64, 128, config.max_num_seqs) for d in (-1, 0, 1)})
    for n_seqs in counts:
        if 1 <= n_seqs <= config.max_num_seqs:
            for longest in (1, 2, 7, 8, 9, 10):
                yield [longest] + [1] * (n_seqs - 1)
                yield [longest] * n_seqs
    yield [config.max_num_batched_tokens]


@dataclass
class Paged:
    """Decoder layers: the builder's metadata, then `TritonAttentionImpl.forward`."""

    made: Any
    n_random: int = 300

    def config(self):
        return self.made

    def kernels(self):
        return attention.kernels()

    def drive(self, config, target, rng):
        batches = [b for b in ends(config) if sum(b) <= config.max_num_batched_tokens]
        batches += [batch(rng, config) for _ in range(self.n_random)]
        with answering_for(target):
            for group in config.attention:
                layer = DrivenLayer(group, config)
                for lengths in batches:
                    layer.forward(lengths, is_fused=rng.random() < 0.5)
        return len(batches) * len(config.attention)


class DrivenLayer:
    """One attention layer of vLLM, without the model around it."""

    def __init__(self, group, config):
        triton_attn = real.module("vllm.v1.attention.backends.triton_attn")
        interface = real.module("vllm.v1.kv_cache_interface")
        self.group, self.config, self.backend = group, config, triton_attn
        self.dtype = getattr(torch, config.dtype)
        stored = group.kv_cache_dtype or config.kv_cache_dtype
        self.is_fp8 = stored.startswith("fp8")
        self.cache_torch_dtype = torch.uint8 if self.is_fp8 else self.dtype
        self.impl = triton_attn.TritonAttentionImpl(
            num_heads=group.n_heads, head_size=group.head_size, scale=0.1, num_kv_heads=group.n_kv_heads,
            alibi_slopes=[0.5] * group.n_heads if group.has_alibi else None, sliding_window=group.sliding_window,
            kv_cache_dtype=stored, logits_soft_cap=group.logits_soft_cap or None,
            sinks=meta(group.n_heads, dtype=getattr(torch, group.sinks_dtype)) if group.sinks_dtype else None,
            chunk_lookback=group.chunk_lookback,
        )  # fmt: skip
        if group.has_alibi:
            self.impl.alibi_slopes = self.impl.alibi_slopes.to("meta")
        spec = interface.FullAttentionSpec(
            block_size=group.block_size,
            num_kv_heads=group.n_kv_heads,
            head_size=group.head_size,
            dtype=self.cache_torch_dtype,
        )
        self.builder = triton_attn.TritonAttentionMetadataBuilder(
            spec, ["layer"], self._vllm_config(), torch.device("meta")
        )
        one = meta(1, dtype=torch.float32)
        self.scales = SimpleNamespace(_q_scale=one, _k_scale=one, _v_scale=one)
        pages = -(-config.max_model_len // group.block_size)
        width = getattr(real.module("vllm.v1.worker.block_table"), "get_block_table_width", lambda n, _: n)
        self.table = meta(config.max_num_seqs, width(pages, group.block_size), dtype=torch.int32)
        self.cache = meta(8, group.n_kv_heads, group.block_size, 2 * group.head_size, dtype=self.cache_torch_dtype)

    def _vllm_config(self):
        group, config = self.group, self.config
        modes = real.module("vllm.config").CUDAGraphMode
        n_draft = config.num_speculative_tokens
        return SimpleNamespace(
            model_config=SimpleNamespace(
                get_num_attention_heads=lambda _: group.n_heads, get_num_kv_heads=lambda _: group.n_kv_heads,
                get_head_size=lambda: group.head_size, rswa_window=None,
            ),
            parallel_config=None,
            compilation_config=SimpleNamespace(
                cudagraph_mode=modes.FULL_AND_PIECEWISE if config.cudagraph_capture_sizes else modes.NONE,
                cudagraph_capture_sizes=list(config.cudagraph_capture_sizes), static_forward_context={},
            ),
            speculative_config=SimpleNamespace(num_speculative_tokens=n_draft, parallel_drafting=False) if n_draft else None,
            scheduler_config=SimpleNamespace(max_num_seqs=config.max_num_seqs),
        )  # fmt: skip

    def forward(self, lengths, *, is_fused):
        """One step: as the runner and the attention layer call it."""
        group, n_tokens, n_seqs = self.group, sum(lengths), len(lengths)
        common = SimpleNamespace(
            num_reqs=n_seqs, num_actual_tokens=n_tokens, max_query_len=max(lengths), max_seq_len=self.config.max_model_len,
            query_start_loc=meta(n_seqs + 1, dtype=torch.int32), seq_lens=meta(n_seqs, dtype=torch.int32),
            block_table_tensor=self.table[:n_seqs], slot_mapping=meta(n_tokens, dtype=torch.int64), causal=True,
            mm_req_doc_ranges=None, rswa_prefix_lens=None,
        )  # fmt: skip
        query, key, value = split_qkv(n_tokens, group.n_heads, group.n_kv_heads, group.head_size, self.dtype, is_fused)
        if self.is_fp8 and self.impl.supports_quant_query_input:
            query = meta(n_tokens, group.n_heads, group.head_size, dtype=torch.float8_e4m3fn)
        output = meta(n_tokens, group.n_heads, group.head_size, dtype=self.dtype)
        metadata = self.builder.build(0, common)
        self.impl.forward(self.scales, query, key, value, self.cache, metadata, output)


@dataclass
class Unpaged:
    """Encoder layers by `_forward_encoder_attention`, vision encoders by `triton_attn_wrapper`."""

    made: Any
    n_random: int = 300

    def config(self):
        return self.made

    def kernels(self):
        return [kernel for kernel in prefill.kernels() if kernel.name == "prefill_attention"]

    def drive(self, config, target, rng):
        longest = config.max_num_batched_tokens
        lengths = [1, 2, 31, 32, 33, 127, 128, 129, longest] + [rng.randint(1, longest) for _ in range(self.n_random)]
        with answering_for(target):
            for group in config.attention:
                for n_tokens in lengths:
                    self._forward(group, config, n_tokens, is_fused=rng.random() < 0.5)
        return len(lengths) * len(config.attention)

    def _forward(self, group, config, n_tokens, *, is_fused):
        dtype = getattr(torch, config.dtype)
        qkv = split_qkv(n_tokens, group.n_heads, group.n_kv_heads, group.head_size, dtype, is_fused)
        if group.kind == "vit":
            wrapper = real.module("vllm.v1.attention.ops.vit_attn_wrappers").triton_attn_wrapper
            q, k, v = (part.unsqueeze(0) for part in qkv)
            wrapper(q, k, v, 1, 0.1)
            return
        triton_attn = real.module("vllm.v1.attention.backends.triton_attn")
        impl = triton_attn.TritonAttentionImpl(
            num_heads=group.n_heads, head_size=group.head_size, scale=0.1, num_kv_heads=group.n_kv_heads, alibi_slopes=None,
            sliding_window=group.sliding_window, kv_cache_dtype="auto", attn_type=triton_attn.AttentionType(group.kind),
            sinks=meta(group.n_heads, dtype=getattr(torch, group.sinks_dtype)) if group.sinks_dtype else None,
        )  # fmt: skip
        metadata = SimpleNamespace(
            query_start_loc=meta(2, dtype=torch.int32), seq_lens=meta(1, dtype=torch.int32), max_query_len=n_tokens
        )
        output = meta(n_tokens, group.n_heads, group.head_size, dtype=dtype)
        impl._forward_encoder_attention(*qkv, output, metadata, SimpleNamespace())  # noqa: SLF001


# A stand-in for a later vLLM: this one's file, in which the unpaged prefill has the soft cap that NVFP4 layers hand to it.
LATER = (
    ("    sm_scale,\n    B_Start_Loc,", "    sm_scale,\n    softcap,\n    B_Start_Loc,"),
    ("    USE_SINKS: tl.constexpr,", "    USE_SINKS: tl.constexpr,\n    USE_SOFTCAP: tl.constexpr,"),
    ("    sinks: torch.Tensor | None = None,", "    softcap: float = 0.0,\n    sinks: torch.Tensor | None = None,"),
    ("        sm_scale,\n        b_start_loc,", "        sm_scale,\n        softcap,\n        b_start_loc,"),
    ("        USE_SINKS=sinks is not None,", "        USE_SINKS=sinks is not None,\n        USE_SOFTCAP=softcap > 0,"),
)


def later_prefill():
    """The stand-in's module, importable by name like the real one."""
    now = real.module(prefill.PrefillAttention.place[0])
    text = Path(now.__file__).read_text()
    for before, after in LATER:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    directory = tempfile.mkdtemp()
    Path(directory, "vllm_later_prefill.py").write_text(text)
    sys.path.insert(0, directory)
    return real.module("vllm_later_prefill")


class LaterNvfp4(prefill.Nvfp4PrefillAttention):
    place = ("vllm_later_prefill", "_fwd_kernel")


@dataclass
class PurePrefill:
    """Decoder layers past an NVFP4 cache, as a later vLLM calls the unpaged prefill: see `later_prefill`."""

    made: Any
    reached: tuple
    n_random: int = 300

    def config(self):
        return self.made

    def kernels(self):
        return [prefill.nvfp4(LaterNvfp4)]

    def drive(self, config, target, rng):
        module, longest = real.module(LaterNvfp4.place[0]), config.max_num_batched_tokens
        lengths = [1, 2, 16, 17, longest] + [rng.randint(1, longest) for _ in range(self.n_random)]
        with answering_for(target):
            for group in self.reached:
                window = (-1, -1) if group.sliding_window is None else (group.sliding_window - 1, 0)
                for n in lengths:
                    is_fused = rng.random() < 0.5
                    qkv = split_qkv(n, group.n_heads, group.n_kv_heads, group.head_size, torch.bfloat16, is_fused)
                    n_seqs = rng.randint(1, n)
                    module.context_attention_fwd(
                        *qkv, meta(n, group.n_heads, group.head_size), meta(n_seqs, dtype=torch.int32),
                        meta(n_seqs, dtype=torch.int32), n, is_causal=True, softmax_scale=rng.random(),
                        softcap=group.logits_soft_cap, sliding_window_q=window[0], sliding_window_k=window[1],
                    )  # fmt: skip
        return len(lengths) * len(self.reached)


NVFP4_REACHED = (
    AttentionGroup(16, 8, 256, sliding_window=1024),
    AttentionGroup(16, 8, 256),
    AttentionGroup(16, 8, 256, logits_soft_cap=50.0),
    AttentionGroup(16, 8, 256, logits_soft_cap=30.0),
    AttentionGroup(32, 8, 128),
)
NVFP4_NOT_REACHED = (
    AttentionGroup(64, 8, 64, sinks_dtype="bfloat16"),
    AttentionGroup(64, 8, 96, has_alibi=True),
    AttentionGroup(64, 8, 112, shares_kv=True),
    AttentionGroup(64, 8, 192, sliding_window=2048, chunk_lookback=1),
    AttentionGroup(64, 8, 160, kv_cache_dtype="fp8"),
    AttentionGroup(64, 8, 120, backend="FLASHINFER"),
)


@dataclass
class Lora:
    """A decoder layer's projections, by `_lora_shrink` and `_lora_expand`. Their weights are real and tiny in one extent."""

    document: Any
    rank: int
    tp_size: int = 1
    n_random: int = 300

    def config(self):
        file = Path(tempfile.mkdtemp()) / "config.json"
        file.write_text(json.dumps(self.document))
        chosen = {"model": str(file), "max_lora_rank": self.rank}
        return model(self.document, self.tp_size, extra={"vllm_kernels": chosen}, max_num_batched_tokens=4096)

    def kernels(self):
        return lora.kernels()

    def drive(self, config, target, rng):
        counts = [1, 2, 15, 16, 17, 127, 128, 129, 4095, 4096] + [rng.randint(1, 4096) for _ in range(self.n_random)]
        places = dict.fromkeys(lora.projections(config))
        shrink, expand = (real.module(kernel.place[0]) for kernel in (lora.LoraShrink, lora.LoraExpand))
        real.module("vllm.utils.torch_utils").PIN_MEMORY = False
        with answering_for(target):
            shrink.supports_pdl.cache_clear()
            for place in places:
                weights = self._weights(place)
                for n_tokens in counts:
                    self._launch(shrink, expand, place, weights, n_tokens)
        return len(counts) * len(places)

    def _weights(self, place):
        a = [meta(2, 1, self.rank, place.inputs) for _ in place.outputs]
        b = [meta(2, 1, size, self.rank) for size in place.outputs]
        return a, b

    def _launch(self, shrink, expand, place, weights, n_tokens):
        utils = real.module("vllm.lora.ops.triton_ops.utils")
        utils._LORA_A_PTR_DICT.clear()  # noqa: SLF001 - by address, and meta tensors have none
        utils._LORA_B_PTR_DICT.clear()  # noqa: SLF001
        of_tokens, of_loras = meta(n_tokens, dtype=torch.int32), meta(3, dtype=torch.int32)
        no_lora, n_active = torch.tensor([False]), torch.tensor([1])
        where = (of_tokens, of_tokens, of_loras, meta(4, dtype=torch.int32), of_loras, no_lora, n_active)
        buffer = meta(len(place.outputs), n_tokens, self.rank, dtype=torch.float32)
        output = meta(n_tokens, sum(place.outputs))
        shrink._lora_shrink(meta(n_tokens, place.inputs), weights[0], buffer, *where, 1.0)  # noqa: SLF001
        expand._lora_expand(buffer, weights[1], output, *where, 0, add_inputs=True)  # noqa: SLF001


def with_groups(*groups, **overrides):
    given = {"attention": groups, "max_model_len": 8192, "max_num_batched_tokens": 2048, "max_num_seqs": 64}
    return models.WarmupConfig(**{**given, "extra": TRITON, **overrides})


def cases():
    """Name -> case. What vLLM's modules import is imported here."""
    attention.kernels()
    prefill.kernels()
    lora.kernels()
    Sampler(1).kernels()
    real.module("vllm.model_executor.layers.vocab_parallel_embedding")
    later_prefill()
    real.module("vllm.v1.attention.backends.triton_attn")
    real.module("vllm.v1.attention.ops.vit_attn_wrappers")
    real.module("vllm.v1.worker.block_table")
    qwen = {**published.LLAMA31_8B, "num_attention_heads": 28, "num_key_value_heads": 4, "hidden_size": 3584}
    encoder = AttentionGroup(12, 12, 64, kind="encoder_only")
    return {
        "Llama-3.1-8B": Paged(model(published.LLAMA31_8B)),
        "Llama-3.1-8B, TP 8": Paged(model(published.LLAMA31_8B, tp_size=8)),
        "Gemma-3-12B": Paged(model(published.GEMMA3_12B)),
        "Gemma-3-12B, TP 8": Paged(model(published.GEMMA3_12B, tp_size=8)),
        "Qwen3-Next-80B-A3B": Paged(model(published.QWEN3_NEXT)),
        "Qwen3-Next-80B-A3B, TP 8": Paged(model(published.QWEN3_NEXT, tp_size=8)),
        "Llama-3.1-8B NVFP4": Paged(model(published.LLAMA31_8B_NVFP4)),
        "few sequences, drafts, no graphs": Paged(
            model(published.LLAMA31_8B, max_num_seqs=3, num_speculative_tokens=3, cudagraph_capture_sizes=())
        ),
        "captured sizes move the split": Paged(
            with_groups(AttentionGroup(16, 16, 128), cudagraph_capture_sizes=(16, 32))
        ),
        "fp8 cache": Paged(model(published.LLAMA31_8B, kv_cache_dtype="fp8")),
        "sinks, cap, ALiBi, chunks, odd heads": Paged(
            with_groups(
                AttentionGroup(64, 8, 64, sliding_window=128, sinks_dtype="bfloat16"),
                AttentionGroup(28, 4, 128, logits_soft_cap=50.0, block_size=32),
                AttentionGroup(40, 1, 120, has_alibi=True),
                AttentionGroup(16, 8, 96, sliding_window=2048, chunk_lookback=1),
                max_model_len=130,
            )
        ),
        "LoRA, Llama-3.1-8B": Lora(published.LLAMA31_8B, 16),
        "LoRA, Llama-3.1-8B, TP 8": Lora(published.LLAMA31_8B, 64, tp_size=8),
        "LoRA, rank 8, odd sizes": Lora({**qwen, "head_dim": 120, "intermediate_size": 18945}, 8),
        "encoders": Unpaged(
            with_groups(
                encoder,
                AttentionGroup(16, 8, 256, sliding_window=1024, kind="encoder_only"),
                AttentionGroup(64, 8, 64, sliding_window=128, sinks_dtype="float32", kind="encoder_only"),
                AttentionGroup(16, 4, 512, kind="encoder_only"),
            )
        ),
        "encoder in 32 bits": Unpaged(with_groups(encoder, dtype="float32")),
        "sampler": Sampler(128256),
        "sampler, odd vocabulary and length": Sampler(50257, max_model_len=1001, logprobs_mode="processed_logprobs"),
        "NVFP4 in a later vLLM": PurePrefill(
            with_groups(*NVFP4_REACHED, *NVFP4_NOT_REACHED, kv_cache_dtype="nvfp4"), NVFP4_REACHED
        ),
        "vision encoder": Unpaged(
            with_groups(AttentionGroup(16, 16, 72, kind="vit"), AttentionGroup(16, 16, 80, kind="vit"))
        ),
    }
