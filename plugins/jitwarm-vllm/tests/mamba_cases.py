"""Decode steps of Mamba-2 layers: vLLM's own layer and metadata builder, to the launch. Imported by `attention_program`."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import published
import torch
from attention_cases import meta
from state_cases import SIZES, InEngine, gpu_functions, prepare

from jitwarm import WarmupConfig
from jitwarm_vllm import models, real, state
from jitwarm_vllm.platform import answering_for

_LAYER = "vllm.model_executor.layers.mamba.mamba_mixer2"
_SSU = "vllm.model_executor.layers.mamba.ops.ssu_dispatch"


@dataclass
class Mamba2:
    """Steps of one layer, from its projection to its output.

    Attributes:
        is_live: Whether the keys come from the layer itself, as in an engine, instead of from the `config.json`.
        table_width: Columns of the group's block table.
        device_name: Names vLLM's file of tuned blocks; empty for none.
    """

    document: Any
    tp_size: int = 1
    is_live: bool = False
    cudagraph_capture_sizes: tuple = SIZES
    block_size: int = 4096
    table_width: int = 1
    cache_mode: str = "none"
    max_num_seqs: int = 256
    device_name: str = ""
    n_random: int = 100

    def config(self):
        file = Path(tempfile.mkdtemp()) / "config.json"
        file.write_text(json.dumps(self.document))
        chosen = {} if self.is_live else {"model": str(file), "block_size": self.block_size}
        if self.device_name:
            chosen["device_name"] = self.device_name
        return WarmupConfig(
            max_num_batched_tokens=2048, max_num_seqs=self.max_num_seqs, tp_size=self.tp_size, max_model_len=8192,
            cudagraph_capture_sizes=self.cudagraph_capture_sizes, extra={"vllm_kernels": chosen},
        )  # fmt: skip

    def kernels(self):
        kernels = [kernel for kernel in state.kernels() if kernel.name != "gdn_packed_decode"]
        if not self.is_live:
            return kernels
        engine = Engine(self)
        return [InEngine(kernel, engine) for kernel in kernels]

    def drive(self, config, target, rng):
        del config
        ends = {n + d for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) for d in (-1, 0, 1)}
        counts = sorted(n for n in ends if 1 <= n <= self.max_num_seqs)
        counts += [rng.randint(1, self.max_num_seqs) for _ in range(self.n_random)]
        with answering_for(target, self.device_name):
            engine = Engine(self)
            of_gpu = gpu_functions(target, state.CausalConv1dUpdate)
            engine.module.causal_conv1d_update = of_gpu.causal_conv1d_update
            engine.module.causal_conv1d_fn = of_gpu.causal_conv1d_fn
            engine.scan._kernel = gpu_functions(target, state.SelectiveScanUpdate).selective_state_update  # noqa: SLF001
            for n_decodes in counts:
                engine.step(n_decodes, 0)
            for n_decodes in [0, *counts]:
                if n_decodes < self.max_num_seqs:
                    engine.step(n_decodes, rng.randint(1, self.max_num_seqs - n_decodes))
                    engine.step(n_decodes, 1, length=1)
        return len(counts)


class Engine:
    """One Mamba-2 layer of vLLM with its cache, its metadata builder and what they ask of an engine; no model around it."""

    def __init__(self, case):
        self.case, self.module = case, real.module(_LAYER)
        text = {**case.document, **case.document.get("text_config", {})}
        self.layer = self._layer(text)
        self._bind_cache(text, models.read(case.document, tp_size=case.tp_size).attention[0])
        self.table = meta(case.max_num_seqs, case.table_width, dtype=torch.int32)
        self.vllm_config = self._vllm_config()
        groups = [SimpleNamespace(layer_names=["mamba"])]
        table = SimpleNamespace(block_table=SimpleNamespace(gpu=self.table))
        self.runner = SimpleNamespace(
            vllm_config=self.vllm_config, kv_cache_config=SimpleNamespace(kv_cache_groups=groups),
            input_batch=SimpleNamespace(block_table=[table]),
        )  # fmt: skip
        self.builder = self._builder()
        # Prompts take other kernels after the convolution.
        self.module.mamba_chunk_scan_combined_varlen = lambda *_, **__: self.layer.kv_cache[1]
        dispatch = real.module(_SSU)
        self.scan = dispatch._mamba_ssu_backend = dispatch.TritonSSUBackend(self.layer.mamba_config)  # noqa: SLF001

    def _layer(self, text):
        """What the constructor sets, which needs a distributed group and makes weights."""
        layer, n = object.__new__(self.module.MambaMixer2), self.case.tp_size
        torch.nn.Module.__init__(layer)
        calculator = real.module("vllm.model_executor.layers.mamba.mamba_utils").MambaStateShapeCalculator
        groups = text.get("mamba_n_groups", text.get("n_groups"))
        layer.tp_size, layer.num_spec, layer.prefix, layer.activation = n, 0, "mamba", "silu"
        layer.ssm_state_size = text.get("mamba_d_state", text.get("ssm_state_size"))
        layer.conv_kernel_size = text.get("mamba_d_conv", text.get("conv_kernel"))
        layer.num_heads = text.get("mamba_n_heads", text.get("mamba_num_heads"))
        layer.head_dim = text.get("mamba_d_head", text.get("mamba_head_dim"))
        layer.intermediate_size = layer.num_heads * layer.head_dim
        layer.n_groups = groups + calculator.extra_groups_for_head_shards(groups, n)
        layer.groups_ssm_state_size = layer.n_groups * layer.ssm_state_size
        layer.conv_dim = layer.intermediate_size + 2 * layer.groups_ssm_state_size
        layer.tped_intermediate_size, layer.tped_conv_size = layer.intermediate_size // n, layer.conv_dim // n
        layer.tped_dt_size = layer.num_heads // n
        parts = [layer.tped_intermediate_size, *[layer.groups_ssm_state_size // n] * 2]
        layer.split_hidden_states_B_C_fn = lambda mixed: torch.split(mixed, parts, dim=-1)
        layer.conv_weights = meta(layer.tped_conv_size, layer.conv_kernel_size)
        layer.conv1d = SimpleNamespace(bias=meta(layer.tped_conv_size))
        layer.A, layer.D, layer.dt_bias = meta(layer.tped_dt_size, dtype=torch.float32), *[meta(layer.tped_dt_size)] * 2
        layer.use_replayssm = False
        layer.cache_config = SimpleNamespace(mamba_cache_mode=self.case.cache_mode)
        layer.mamba_config = real.module("vllm.config.mamba").MambaConfig()
        layer.is_blackwell = self.module.current_platform.is_device_capability_family(100)
        return layer

    def _bind_cache(self, text, group):
        """Pages as large as attention's, which vLLM's own function takes apart."""
        utils, layer = real.module("vllm.model_executor.layers.mamba.mamba_utils"), self.layer
        nemotron = real.module("vllm.model_executor.models.config").NemotronHForCausalLMConfig
        cache = SimpleNamespace(mamba_ssm_cache_dtype="auto")
        if text["model_type"] == "nemotron_h":
            nemotron.update_mamba_ssm_cache_dtype(cache_config=cache, hf_config=SimpleNamespace(**text))
        calculator = utils.MambaStateDtypeCalculator
        dtypes = calculator.mamba2_state_dtype(torch.bfloat16, "auto", cache.mamba_ssm_cache_dtype)
        self.module.get_tensor_model_parallel_world_size = lambda: self.case.tp_size
        layer.get_state_dtype = lambda: dtypes
        page = 2 * self.case.block_size * group.n_kv_heads * group.head_size * 2
        layer.bind_kv_cache(meta(64, 1, 1, page, dtype=torch.int8))

    def _vllm_config(self):
        case, modes = self.case, real.module("vllm.config").CUDAGraphMode
        has_graphs = bool(case.cudagraph_capture_sizes)
        return SimpleNamespace(
            compilation_config=SimpleNamespace(
                cudagraph_mode=modes.FULL_AND_PIECEWISE if has_graphs else modes.NONE, mode=3 if has_graphs else 0,
                max_cudagraph_capture_size=max(case.cudagraph_capture_sizes, default=0),
                static_forward_context={"mamba": self.layer},
            ),
            cache_config=SimpleNamespace(
                mamba_cache_mode=case.cache_mode, use_replayssm=False, replayssm_buffer_len=None, hash_block_size=None,
                cache_hit_alignment_tokens=None, prefix_match_unit=None,
            ),
            scheduler_config=SimpleNamespace(max_num_seqs=case.max_num_seqs, max_num_batched_tokens=2048),
            mamba_config=self.layer.mamba_config, model_config=SimpleNamespace(get_mamba_chunk_size=lambda: 256),
            speculative_config=None, num_speculative_tokens=0, use_v2_model_runner=False,
            parallel_config=SimpleNamespace(decode_context_parallel_size=1),
        )  # fmt: skip

    def _builder(self):
        spec = real.module("vllm.v1.kv_cache_interface").MambaSpec(
            shapes=tuple(self.layer.get_state_shape()), dtypes=self.layer.get_state_dtype(), block_size=8192,
        )  # fmt: skip
        of_class = real.module("vllm.v1.attention.backends.mamba2_attn").Mamba2AttentionMetadataBuilder
        return of_class(spec, ["mamba"], self.vllm_config, torch.device("meta"))

    def step(self, n_decodes, n_prefills, length=2):
        """Decodes of one token each, then first prompts, as the runner builds the step and the layer runs it."""
        lengths = [1] * n_decodes + [length] * n_prefills
        starts = torch.cumsum(torch.tensor([0, *lengths], dtype=torch.int32), 0, dtype=torch.int32)
        n, total = len(lengths), sum(lengths)
        seq_lens = torch.tensor([8] * n_decodes + [length] * n_prefills, dtype=torch.int32)
        backend = real.module("vllm.v1.attention.backend")
        common = backend.CommonAttentionMetadata(
            query_start_loc=starts.to("meta"), query_start_loc_cpu=starts, seq_lens=meta(n, dtype=torch.int32),
            num_reqs=n, num_actual_tokens=total, max_query_len=max(lengths), max_seq_len=8192,
            block_table_tensor=self.table[:n], slot_mapping=meta(total, dtype=torch.int64), seq_lens_cpu_upper_bound=seq_lens,
            is_prefilling=torch.tensor([False] * n_decodes + [True] * n_prefills),
        )  # fmt: skip
        metadata = self.builder.build(0, common)
        self.module.get_forward_context = lambda: SimpleNamespace(attn_metadata={"mamba": metadata})
        layer = self.layer
        row = layer.tped_intermediate_size + layer.tped_conv_size + layer.tped_dt_size
        layer.conv_ssm_forward(meta(total, row), meta(total, layer.tped_intermediate_size))


def cases():
    """Name -> case. What vLLM's modules import is imported here."""
    prepare(
        _LAYER, _SSU, "vllm.v1.attention.backends.mamba2_attn", "vllm.v1.kv_cache_interface", "vllm.config.mamba",
        "vllm.model_executor.models.config",
    )  # fmt: skip
    granite, nemotron = published.GRANITE4_H_SMALL, published.NEMOTRON_H_8B
    return {
        "Granite-4.0-H-Small": Mamba2(granite),
        "Granite-4.0-H-Small, TP 8": Mamba2(granite, tp_size=8),
        "Granite-4.0-H-Small, TP 32": Mamba2(granite, tp_size=32),
        "Nemotron-H-8B": Mamba2(nemotron),
        "Nemotron-H-8B, TP 8, eager": Mamba2(nemotron, tp_size=8, cudagraph_capture_sizes=()),
        "Nemotron-H-8B, tuned": Mamba2(nemotron, device_name="NVIDIA H200"),
        "three sequences": Mamba2(granite, max_num_seqs=3),
        "live Granite-4.0-H-Small": Mamba2(granite, is_live=True),
        "live, few captured sizes, wide table": Mamba2(
            nemotron, is_live=True, cudagraph_capture_sizes=(1, 2, 4, 8, 16), table_width=3
        ),
        "live, aligned pages": Mamba2(
            nemotron, is_live=True, cudagraph_capture_sizes=(), table_width=9, cache_mode="align"
        ),
        "without block_size": Mamba2(granite, block_size=0),
    }
