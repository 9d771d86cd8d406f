"""Hybrid models' decode steps: vLLM's own layer and metadata builder, to the launch. Imported by `attention_program`."""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import tempfile
import types
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import published
import torch
from attention_cases import meta

from jitwarm import WarmupConfig
from jitwarm.contract.config import LiveObjects
from jitwarm_vllm import models, real, state
from jitwarm_vllm.platform import answering_for

_LAYER = "vllm.model_executor.layers.mamba.gdn.qwen_gdn_linear_attn"
SIZES = (1, 2, 4, 8, *range(16, 257, 8))


class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for a package of checkpoint formats that vLLM's linear layers import, where it is not installed."""

    def find_spec(self, name, path, target=None):
        del path, target
        is_ours = name.partition(".")[0] == "compressed_tensors"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_ours else None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = lambda name: type(name, (), {})
        return module

    def exec_module(self, module):
        pass


def gpu_functions(target, declaration):
    """A kernel's host functions as a GPU's process has them: on a CPU platform others take their names."""
    now = real.module(declaration.place[0])
    spec = importlib.util.spec_from_file_location(f"{declaration.__name__}_of_a_gpu", now.__file__)
    module = importlib.util.module_from_spec(spec)
    with answering_for(target):
        spec.loader.exec_module(module)
    module.torch = TorchOfADevice()
    return module


class ConvolvedError(Exception):
    """Behind the convolution, prompts take kernels that are not declared here."""


def convolved(function, *args, **kwargs):
    """Call vLLM's function, and end the step."""
    function(*args, **kwargs)
    raise ConvolvedError


class TorchOfADevice:
    """`torch` whose `empty_like` strides meta tensors as any other: of themselves they forget what a lone row keeps."""

    def __getattr__(self, name):
        return getattr(torch, name)

    def empty_like(self, x):
        strides = torch.empty_like(torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)).stride()
        return torch.empty_strided(x.shape, strides, dtype=x.dtype, device=x.device)


@dataclass
class Gdn:
    """Decode steps of one layer, from its projections on: `forward_cuda`, which launches what the metadata asks for.

    Attributes:
        is_live: Whether the keys come from the layer itself, as in an engine, instead of from the `config.json`.
        is_compiled: Whether torch.compile stands between projection and core; it makes `contiguous()` a copy always.
        table_width: Columns of the group's block table.
    """

    document: Any
    tp_size: int = 1
    is_live: bool = False
    is_compiled: bool = True
    cudagraph_capture_sizes: tuple = SIZES
    block_size: int = 1056
    table_width: int = 1
    cache_mode: str = "none"
    max_num_seqs: int = 256
    n_draft: int = 0
    n_random: int = 100

    def config(self):
        file = Path(tempfile.mkdtemp()) / "config.json"
        file.write_text(json.dumps(self.document))
        chosen = {} if self.is_live else {"model": str(file), "block_size": self.block_size}
        return WarmupConfig(
            max_num_batched_tokens=2048, max_num_seqs=self.max_num_seqs, tp_size=self.tp_size, max_model_len=8192,
            cudagraph_capture_sizes=self.cudagraph_capture_sizes, num_speculative_tokens=self.n_draft,
            extra={"vllm_kernels": chosen},
        )  # fmt: skip

    def kernels(self):
        kernels = [kernel for kernel in state.kernels() if kernel.name != "selective_scan_update"]
        if not self.is_live:
            return kernels
        engine = Engine(self)
        return [InEngine(kernel, engine) for kernel in kernels]

    def drive(self, config, target, rng):
        del config
        ends = {n + d for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) for d in (-1, 0, 1)}
        counts = sorted(n for n in ends if 1 <= n <= self.max_num_seqs)
        counts += [rng.randint(1, self.max_num_seqs) for _ in range(self.n_random)]
        engine = Engine(self)
        with answering_for(target):
            of_gpu = gpu_functions(target, state.CausalConv1dUpdate)
            engine.layer_module.causal_conv1d_update = of_gpu.causal_conv1d_update
            engine.layer_module.causal_conv1d_fn = partial(convolved, of_gpu.causal_conv1d_fn)
            for n_seqs in counts:
                engine.step([1] * n_seqs)
                engine.step([1] * (n_seqs - 1) + [rng.randint(2, 512)])
            engine.step([1], n_computed=0)
        return len(counts)


class InEngine:
    """A kernel that is asked for its keys where an engine's live objects are."""

    def __init__(self, kernel, engine):
        self._kernel, self._engine = kernel, engine

    def __getattr__(self, name):
        return getattr(self._kernel, name)

    def get_warmup_keys(self, config):
        with LiveObjects(None, self._engine.runner):
            return self._kernel.get_warmup_keys(config)


class Engine:
    """One GDN layer of vLLM with its cache, its metadata builder and what they ask of an engine; no model around it."""

    def __init__(self, case):
        self.case, self.layer_module = case, real.module(_LAYER)
        text = {**case.document, **case.document.get("text_config", {})}
        self.layer = self._layer(text)
        self._bind_cache(models.read(case.document, tp_size=case.tp_size).attention[0])
        self.table = meta(case.max_num_seqs, case.table_width, dtype=torch.int32)
        self.vllm_config = self._vllm_config()
        groups = [SimpleNamespace(layer_names=["gdn"])]
        table = SimpleNamespace(block_table=SimpleNamespace(gpu=self.table))
        self.runner = SimpleNamespace(
            vllm_config=self.vllm_config, kv_cache_config=SimpleNamespace(kv_cache_groups=groups),
            input_batch=SimpleNamespace(block_table=[table]),
        )  # fmt: skip
        self.builder = self._builder()

    def _layer(self, text):
        of_class, n = self.layer_module.QwenGatedDeltaNetAttention, self.case.tp_size
        layer = object.__new__(of_class)
        torch.nn.Module.__init__(layer)
        layer.tp_size, layer.tp_rank, layer.num_spec, layer.prefix = n, 0, 0, "gdn"
        layer.num_k_heads, layer.num_v_heads = text["linear_num_key_heads"], text["linear_num_value_heads"]
        layer.head_k_dim, layer.head_v_dim = text["linear_key_head_dim"], text["linear_value_head_dim"]
        layer.conv_kernel_size, layer.activation = text["linear_conv_kernel_dim"], text["hidden_act"]
        layer.key_dim, layer.value_dim = layer.num_k_heads * layer.head_k_dim, layer.num_v_heads * layer.head_v_dim
        layer.gqa_interleaved_layout = text["model_type"].startswith("qwen3_next")
        layer.disable_tp_for_ba_proj = layer.enable_fused_gdn_spec_decode = False
        layer.enable_packed_recurrent_decode = True
        layer.A_log, layer.dt_bias = meta(layer.num_v_heads // n, dtype=torch.float32), meta(layer.num_v_heads // n)
        width = (2 * layer.key_dim + layer.value_dim) // n
        layer.conv1d = SimpleNamespace(weight=meta(width, 1, layer.conv_kernel_size), bias=None)
        layer.in_proj_qkvz = lambda x: (meta(x.size(0), width + layer.value_dim // n), None)
        layer.in_proj_ba = lambda x: (meta(x.size(0), 2 * layer.num_v_heads // n), None)
        layer._output_projection = lambda *_: None
        return layer

    def _bind_cache(self, group):
        """Pages as large as attention's, which vLLM's own function takes apart."""
        utils, text = real.module("vllm.model_executor.layers.mamba.mamba_utils"), self.case.document
        ssm = {**text, **text.get("text_config", {})}.get("mamba_ssm_dtype", "auto")
        dtypes = utils.MambaStateDtypeCalculator.gated_delta_net_state_dtype(torch.bfloat16, "auto", ssm)
        self.layer.get_state_dtype = lambda: dtypes
        page = 2 * self.case.block_size * group.n_kv_heads * group.head_size * 2
        self.layer.bind_kv_cache(meta(64, 1, 1, page, dtype=torch.int8))

    def _vllm_config(self):
        case, modes = self.case, real.module("vllm.config").CUDAGraphMode
        has_graphs = bool(case.cudagraph_capture_sizes)
        return SimpleNamespace(
            compilation_config=SimpleNamespace(
                cudagraph_mode=modes.FULL_AND_PIECEWISE if has_graphs else modes.NONE, mode=3 if case.is_compiled else 0,
                max_cudagraph_capture_size=max(case.cudagraph_capture_sizes, default=0),
                static_forward_context={"gdn": self.layer},
            ),
            cache_config=SimpleNamespace(mamba_cache_mode=case.cache_mode, prefix_match_unit=None),
            scheduler_config=SimpleNamespace(max_num_seqs=case.max_num_seqs, max_num_batched_tokens=2048),
            speculative_config=None,
            parallel_config=SimpleNamespace(decode_context_parallel_size=1), use_v2_model_runner=False, num_speculative_tokens=0,
        )  # fmt: skip

    def _builder(self):
        gdn_attn = real.module("vllm.v1.attention.backends.gdn_attn")
        self.layer_module._resolve_gdn_prefill_backend = lambda _: ("auto", "triton")  # noqa: SLF001 - prefills are others
        spec = real.module("vllm.v1.kv_cache_interface").MambaSpec(
            shapes=tuple(self.layer.get_state_shape()), dtypes=self.layer.get_state_dtype(), block_size=8192,
        )  # fmt: skip
        return gdn_attn.GDNAttentionMetadataBuilder(spec, ["gdn"], self.vllm_config, torch.device("meta"))

    def step(self, lengths, n_computed=8192):
        """One step with so many tokens of each sequence, as the runner builds it and the layer runs it."""
        backend, n_seqs, n_tokens = real.module("vllm.v1.attention.backend"), len(lengths), sum(lengths)
        starts = torch.cumsum(torch.tensor([0, *lengths], dtype=torch.int32), 0, dtype=torch.int32)
        common = backend.CommonAttentionMetadata(
            query_start_loc=starts.to("meta"), query_start_loc_cpu=starts, seq_lens=meta(n_seqs, dtype=torch.int32),
            num_reqs=n_seqs, num_actual_tokens=n_tokens, max_query_len=max(lengths), max_seq_len=16384,
            block_table_tensor=self.table[:n_seqs], slot_mapping=meta(n_tokens, dtype=torch.int64),
            seq_lens_cpu_upper_bound=torch.tensor(lengths, dtype=torch.int32) + n_computed,
            is_prefilling=torch.tensor([length > 1 or not n_computed for length in lengths]),
        )  # fmt: skip
        metadata = self.builder.build(0, common)
        self.layer_module.get_forward_context = lambda: SimpleNamespace(attn_metadata={"gdn": metadata})
        torch.ops.vllm.qwen_gdn_attention_core = self._core
        with suppress(ConvolvedError):
            self.layer.forward_cuda(meta(n_tokens, 64))

    def _core(self, mixed_qkv, b, a, out, layer_name):
        del layer_name
        if self.case.is_compiled:
            a, b = (
                torch.empty_strided(gate.shape, (gate.size(1), 1), dtype=gate.dtype, device="meta") for gate in (a, b)
            )
        self.layer._forward_core(mixed_qkv=mixed_qkv, b=b, a=a, core_attn_out=out)  # noqa: SLF001


def prepare(*modules):
    """Import vLLM's modules, as far as that needs a hand where there is no GPU."""
    torch._dynamo.config.disable = True  # noqa: SLF001 - vLLM compiles a function that splits a tensor
    if importlib.util.find_spec("compressed_tensors") is None:
        sys.meta_path.append(StandIn())
    state.kernels()
    for name in modules:
        real.module(name)
    for module in [module for module in sys.modules.values() if vars(module).get("PIN_MEMORY") is True]:
        module.PIN_MEMORY = False  # there is no device for which to pin


def cases():
    """Name -> case. What vLLM's modules import is imported here."""
    prepare(_LAYER, "vllm.v1.attention.backends.gdn_attn", "vllm.v1.kv_cache_interface", "vllm.config")
    next_80b, dense = published.QWEN3_NEXT_80B, published.QWEN35_DENSE
    eager = {"is_compiled": False, "cudagraph_capture_sizes": ()}
    return {
        "Qwen3-Next-80B-A3B": Gdn(next_80b),
        "Qwen3-Next-80B-A3B, TP 8": Gdn(next_80b, tp_size=8),
        "Qwen3-Next-80B-A3B, TP 16, eager": Gdn(next_80b, tp_size=16, **eager),
        "Qwen3-Next-80B-A3B, eager": Gdn(next_80b, **eager),
        "Qwen3.5, fp32 state": Gdn(dense),
        "Qwen3.5, fp32 state, TP 4": Gdn(dense, tp_size=4),
        "Qwen3.5, eager": Gdn(dense, **eager),
        "Qwen3.5, TP 8, eager": Gdn(dense, tp_size=8, **eager),
        "three sequences": Gdn(next_80b, max_num_seqs=3),
        "live Qwen3-Next-80B-A3B": Gdn(next_80b, is_live=True),
        "live Qwen3.5, eager": Gdn(dense, is_live=True, **eager),
        "live, few captured sizes, wide table": Gdn(
            next_80b, is_live=True, cudagraph_capture_sizes=(1, 2, 4, 8, 16), table_width=3
        ),
        "without block_size": Gdn(next_80b, block_size=0),
        "a block_size below the state's": Gdn(next_80b, block_size=16),
        "drafts": Gdn(next_80b, n_draft=2),
        "live, drafts": Gdn(next_80b, is_live=True, n_draft=2),
        "live, aligned pages": Gdn(
            next_80b, is_live=True, cudagraph_capture_sizes=(), table_width=9, cache_mode="align"
        ),
    }
