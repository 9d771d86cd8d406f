"""Which MoE layers have keys at all, without vLLM."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from moe_kinds import fp8, int4

from jitwarm import MoELayer, Target, Unresolved, WarmupConfig
from jitwarm.contract.backend import TargetScope
from jitwarm_vllm.moe_layers import launched_length, layers, n_tokens, require_cuda
from jitwarm_vllm.plugin import jitwarm_kernels
from jitwarm_vllm.quantization import ModelConfigError

PLAIN = MoELayer(8, 8, 2, 64, 32)
INT4 = int4(8, 8, 2, 256, 128)


def config(*moe, **settings):
    return WarmupConfig(moe=moe, extra={"vllm_kernels": settings})


def test_layers_of_one_shape_are_one():
    assert layers(config(PLAIN, INT4, PLAIN), [""]) == [PLAIN]


@pytest.mark.parametrize(
    ("layer", "scheme"),
    [
        (PLAIN, ""),
        (INT4, "int4_w4a16"),
        (fp8(8, 8, 2, 64, 32), "fp8_w8a8"),
        (MoELayer(8, 8, 2, 64, 32, "mxfp4"), "mxfp4"),
    ],
)
def test_a_layer_has_one_scheme(layer, scheme):
    """Also one of which no more than the name of the method is known: it is not taken for unquantized."""
    schemes = ["", "int4_w4a16", "fp8_w8a8", "mxfp4"]
    assert [known for known in schemes if layers(config(layer), [known])] == [scheme]


@pytest.mark.parametrize("experts", ["MarlinExperts", "CPUExperts", "DeepGemmExperts"])
def test_layers_that_another_class_runs_have_no_keys(experts):
    assert layers(config(MoELayer(8, 8, 2, 64, 32, experts=experts)), [""]) == []


@pytest.mark.parametrize(
    ("backend", "n_layers"), [("auto", 1), ("triton", 1), ("marlin", 0), ("flashinfer_cutlass", 0)]
)
def test_the_settings_name_another_backend(backend, n_layers):
    assert len(layers(config(PLAIN, moe_backend=backend), [""])) == n_layers


def test_wrong_settings_are_an_error_not_an_empty_list():
    with pytest.raises(ModelConfigError, match="did you mean 'moe_backend'"):
        layers(config(PLAIN, moe_backnd="triton"), [""])


def test_data_parallel_ranks_bring_their_tokens_together():
    assert n_tokens(WarmupConfig(max_num_batched_tokens=512, dp_size=4)) == 2048


def test_another_kind_of_gpu_is_unresolved_with_the_reason():
    with TargetScope(Target.parse("hip:gfx942")), pytest.raises(Unresolved, match="not derived for hip:gfx942"):
        require_cuda()


@pytest.mark.parametrize(
    ("n_routed", "length"),
    [(1, 16), (7, 112), (8, 128), (9, 129)],  # 8 experts, tiles of 16 rows
)
def test_few_routed_tokens_have_a_tile_each(n_routed, length):
    assert launched_length(n_routed, 8, 16) == length


def test_without_a_model_nothing_is_listed_and_vllm_is_not_imported():
    program = (
        "import sys, jitwarm; from jitwarm_vllm import plugin\n"
        "assert plugin.jitwarm_kernels(jitwarm.WarmupConfig(), jitwarm.Target.parse('cuda:90')) == []\n"
        "assert not {'vllm', 'torch', 'triton'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - the lines above


@pytest.mark.parametrize("config", [WarmupConfig(), config(), WarmupConfig(moe=(PLAIN,))])
def test_an_engine_that_launches_no_triton_kernel_has_none_listed(monkeypatch, config):
    """As vLLM's CPU build is: it was imported without Triton."""
    monkeypatch.setitem(sys.modules, "vllm.triton_utils", SimpleNamespace(HAS_TRITON=False))
    assert jitwarm_kernels(config, Target.parse("cuda:90")) == []
