"""Made-up configurations, large enough that every in-tree kernel of vLLM 0.33 has keys to warm up."""

import contextlib
import sys
from collections.abc import Iterator
from types import SimpleNamespace as Some
from typing import Any

DEVICES = ((10, 0), (9, 0))


def config(*, cache_dtype: str = "fp8_ds_mla", indexer: str = "mxfp4", max_tokens: int = 8192) -> Any:
    """What the kernels read of a VllmConfig, for a model like DeepSeek-V4 in eight ways of tensor and context parallelism."""
    import torch

    hf = Some(
        activation="silu",
        compress_ratios=[0, 4, 128],
        head_dim=512,
        hc_mult=4,
        hidden_size=4096,
        index_head_dim=128,
        index_kpool=1,
        index_n_heads=64,
        index_topk=512,
        layer_types=["compressed_sparse_attention", "heavily_compressed_attention"],
        model_type="deepseek_v4",
        num_attention_heads=64,
        num_key_value_heads=8,
        num_nextn_predict_layers=1,
        o_groups=8,
        q_lora_rank=1024,
        qk_rope_head_dim=64,
        rel_extent=1024,
        rms_norm_eps=1e-6,
        sliding_window=128,
        sliding_window_size=512,
        swa_head_dim=128,
        swa_num_attention_heads=64,
        swa_num_key_value_heads=8,
        vision_max_n_token=64,
        vision_n_layers=2,
    )
    return Some(
        attention_config=Some(
            hisparse_config=Some(), indexer_sparse_logits=True, resolve_indexer_kv_dtype=lambda default: indexer
        ),
        cache_config=Some(block_size=256, cache_dtype=cache_dtype),
        compilation_config=Some(
            static_forward_context={"cache": Some(kv_cache=torch.empty(4, 2, 584, dtype=torch.uint8))}
        ),
        model_config=Some(
            dtype=torch.bfloat16,
            get_num_attention_heads=lambda parallel: 64,
            hf_config=hf,
            hf_text_config=hf,
            max_model_len=131_072,
            rswa_window=None,
        ),
        parallel_config=Some(
            cp_kv_cache_interleave_size=128,
            decode_context_parallel_size=8,
            prefill_context_parallel_size=2,
            tensor_parallel_size=8,
        ),
        scheduler_config=Some(max_num_batched_tokens=max_tokens, max_num_seqs=256),
        speculative_config=Some(num_speculative_tokens=3, use_dspark=lambda: True),
    )


def _mhc() -> list[dict[str, Any]]:
    eps = {"rms_eps": 1e-6, "hc_pre_eps": 1e-6, "hc_sinkhorn_eps": 1e-6, "norm_eps": (1e-6, 1e-5)}
    common = {
        "hidden_size": 4096,
        "hc_mult": 4,
        "use_norm_weight": True,
        "hc_post_mult_value": 2.0,
        "sinkhorn_repeat": 20,
    }
    extra = {"broadcast_norm_eps": 1e-5, "include_pre_gemm_splits": True, "include_broadcast_splits": True}
    return [{**common, **eps}, {**common, **eps, **extra}]


def _dense(head_size: int, window: int | None = None) -> dict[str, Any]:
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    cfg = config()
    cfg.parallel_config.decode_context_parallel_size = 1
    spec = FullAttentionSpec(
        block_size=128, num_kv_heads=8, head_size=head_size, dtype=torch.bfloat16, sliding_window=window
    )
    return {"vllm_config": cfg, "kv_cache_spec": spec, "num_qo_heads": 64}


def _by_kernel() -> dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    import torch

    def named(*kwargs: dict[str, Any]) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [((), given) for given in kwargs]

    norms = {
        "x_dtype": torch.bfloat16,
        "weight_dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "activation": "silu",
    }
    slots = {
        "kv_cache_block_size": 256,
        "total_cp_world_size": 8,
        "total_cp_rank": 1,
        "cp_kv_cache_interleave_size": 128,
    }
    pre_norm = {"hidden_size": 4096, "hc_mult": 4, "rms_eps": 1e-6, "hc_pre_eps": 1e-6, "hc_sinkhorn_eps": 1e-6}
    pre_norm |= {
        "hc_post_mult_value": 2.0,
        "sinkhorn_repeat": 20,
        "norm_eps": 1e-6,
        "use_pre_mix_in": False,
        "rms_numel": 16384,
    }
    return {
        "CombineTopkSwaIndicesKernel": [((config(),), {})],
        "ComputeDSparkNoncausalSWAIndicesKernel": named(
            {"window_size": 128, "num_speculative_tokens": 3, "block_size": 256}
        ),
        "ComputeSlotMappingKernel": named(*({**slots, "block_table_stride": n} for n in (1, 512, 513))),
        "ComputeSWAIndicesAndLensKernel": named(
            {"window_size": 128, "block_size": 256}, {"window_size": 128, "block_size": 256, "max_image_tokens": 64}
        ),
        "ConvertReqIndexToGlobalIndexKernel": [((config(),), {"block_stride_rows": 1})],
        "FA4DenseAttentionKernel": named(_dense(256), _dense(256, 1024), _dense(512)),
        "FusedWoAKernel": named(
            *({"max_tokens": n, "n_groups": 8, "heads_per_group": 8, "o_lora_rank": 1024} for n in (64, 1024, 8192))
        ),
        "HcHeadFusedTileLangKernel": named({"hidden_size": 4096, "hc_mult": 4, "rms_eps": 1e-6, "hc_eps": 1e-6}),
        "HcPrenormGemmTileLangKernel": [((config(),), {"hidden_size": 4096, "hc_mult": 4, "n_out": 24})],
        "LayerNormFwdKernel": named(
            {
                **norms,
                "max_num_tokens": 512,
                "rows_per_token": 8,
                "group_size": 128,
                "norm_before_gate": True,
                "is_rms_norm": True,
            }
        ),
        "LLFp32WGemm": named(
            {"shapes": [(4096, 128), (4096, 256), (7168, 256), (6144, 256)], "m_values": range(1, 33)}
        ),
        "MhcFusedTileLangKernel": [((config(max_tokens=n),), {"hidden_size": 4096, "hc_mult": 4}) for n in (8, 8192)],
        "MhcPostTileLangKernel": named({"hidden_size": 4096, "hc_mult": 4}),
        "MhcPreBigFuseTileLangKernel": [((config(max_tokens=n),), given) for n in (512, 8192) for given in _mhc()],
        "MHCPreNormKernel": named({"max_tokens": 8192, "extra_splits": (2, 4, 8), **pre_norm}),
        "PackSeqTritonKernel": named(
            {"dtype": torch.uint8, "pad_value": 0}, {"dtype": torch.bfloat16, "pad_value": float("-inf")}
        ),
        "PrepareUniformDecodeKernel": named({}),
        "SavePartialStatesKernel": named(*({"head_dim": 512, "compress_ratio": ratio} for ratio in (4, 128))),
        "SparseAttnNormRopeStoreKernel": [((config(),), {"k_cache_prefix": "cache", "compress_ratio": 128})],
        "UnpackSeqTritonKernel": named({}),
    }


def calls(kernel: str) -> Iterator[tuple[tuple[int, int], tuple[Any, ...], dict[str, Any]]]:
    """Device, positional and named arguments for a kernel's `get_warmup_keys`; a configuration alone, unless it needs others."""
    for device in DEVICES:
        ways = _by_kernel().get(kernel) or [
            ((config(),), {}),
            ((config(cache_dtype="fp8_e4m3", indexer="fp8", max_tokens=2048),), {}),
        ]
        for arguments, named in ways:
            yield device, tuple(_for(device, argument) for argument in arguments), named


def _for(device: tuple[int, int], configuration: Any) -> Any:
    """A Hopper GPU has no MXFP4 indexer; vLLM refuses the configuration."""
    if device < (10, 0):
        configuration.attention_config.resolve_indexer_kv_dtype = lambda default: default
    return configuration


@contextlib.contextmanager
def platform(device: tuple[int, int]) -> Iterator[None]:
    """vLLM's one platform object, and torch, say that there is such a GPU. Undone afterwards."""
    import torch
    from vllm.platforms import current_platform
    from vllm.platforms.interface import DeviceCapability, PlatformEnum

    before = type(current_platform)

    class Faked(before):
        _enum = PlatformEnum.CUDA

        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:
            return DeviceCapability(*device)

        @classmethod
        def is_arch_support_pdl(cls) -> bool:
            return True

        @classmethod
        def num_compute_units(cls, device_id: int = 0) -> int:
            return 132

    properties = torch.cuda.get_device_properties
    replaced = []
    answers = {
        "get_dcp_group": lambda: Some(rank_in_group=1),
        "get_flash_attn_version": lambda *_, **__: 4,
        "get_tensor_model_parallel_world_size": lambda: 8,
    }
    for name, value in answers.items():
        for module in [m for n, m in sys.modules.items() if n.startswith("vllm.") and name in vars(m)]:
            replaced.append((module, name, vars(module)[name]))
            setattr(module, name, value)
    current_platform.__class__ = Faked
    torch.cuda.get_device_properties = lambda *_: Some(multi_processor_count=132)
    try:
        yield
    finally:
        current_platform.__class__ = before
        torch.cuda.get_device_properties = properties
        for module, name, value in replaced:
            setattr(module, name, value)
