"""Targets: two spellings are right, and every other one is told which."""

import pytest

from jitwarm import Target, Toolchain
from jitwarm.errors import TargetError


@pytest.mark.parametrize(
    "text", ["cuda:75", "cuda:90", "cuda:100", "cuda:120", "hip:gfx90a", "hip:gfx942", "hip:gfx1100"]
)
def test_a_target_reads_back_as_it_was_written(text):
    assert str(Target.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("cuda:90a", "cuda:90"),
        ("cuda:9.0", "cuda:90"),
        ("sm_90", "cuda:90"),
        ("sm_90a", "cuda:90"),
        ("sm_100f", "cuda:100"),
        ("90", "cuda:90"),
        ("CUDA:90", "cuda:90"),
        ("compute_80", "cuda:80"),
        ("gfx942", "hip:gfx942"),
        ("rocm:gfx942", "hip:gfx942"),
        ("cuda:gfx942", "hip:gfx942"),
        ("cuda:090", "cuda:90"),
    ],
)
def test_a_slip_is_refused_with_the_right_spelling(text, right):
    with pytest.raises(TargetError) as caught:
        Target.parse(text)
    assert repr(text) in caught.value.message
    assert f"write '{right}'" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "cuda", "cuda:", "cuda:9", "cuda:900", "cuda:-90", "hip:", "nonsense", "tpu:v5", "cuda:٩٠"]
)
def test_nonsense_is_refused_with_both_forms(text):
    with pytest.raises(TargetError) as caught:
        Target.parse(text)
    assert "cuda:90" in caught.value.hint
    assert "hip:gfx942" in caught.value.hint


@pytest.mark.parametrize(
    ("arch", "sm"), [("75", "sm_75"), ("89", "sm_89"), ("90", "sm_90a"), ("100", "sm_100a"), ("120", "sm_120a")]
)
def test_the_a_stands_from_major_9_on_and_never_below(arch, sm):
    assert Target("cuda", arch).sm == sm


def test_capability_is_what_torch_reports():
    assert Target.parse("cuda:90").capability == (9, 0)
    assert Target.parse("cuda:120").capability == (12, 0)
    with pytest.raises(TargetError, match="no CUDA"):
        _ = Target.parse("hip:gfx942").capability


@pytest.mark.parametrize(
    ("text", "lanes"), [("cuda:90", 32), ("hip:gfx90a", 64), ("hip:gfx942", 64), ("hip:gfx1100", 32)]
)
def test_warp_size_is_64_on_gfx9_alone(text, lanes):
    assert Target.parse(text).warp_size == lanes


def test_toolchains_are_no_part_of_a_targets_name_or_equality():
    plain, carried = Target("cuda", "90"), Target("cuda", "90", (Toolchain("triton", (("triton", "3.9.0"),)),))
    assert plain == carried
    assert hash(plain) == hash(carried)
    assert str(plain) == str(carried)


def test_what_only_the_building_machine_needs_does_not_decide_exchange():
    with_nvcc = Toolchain("tilelang", (("tilelang", "0.1.15"),), (("nvcc", "13.0"),))
    without = Toolchain("tilelang", (("tilelang", "0.1.15"),), (("nvcc", "none"),))
    assert with_nvcc.text() == without.text() == "tilelang 0.1.15"
    assert with_nvcc.full_text() == "tilelang 0.1.15, nvcc 13.0"
