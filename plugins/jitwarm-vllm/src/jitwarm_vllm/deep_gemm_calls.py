"""DeepGEMM's host functions, called as vLLM calls them, with tensors that have a shape and no content.

For the process of `deep_gemm_host`, in which the device is a description: nothing is launched there. Imports torch and DeepGEMM,
never vLLM.
"""

from collections.abc import Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

_FP8 = torch.float8_e4m3fn
_BLOCK = 128  # elements that share a scale, in both directions
_PACKED = 4  # scales of 8 bits in an int32
_ALIGNED = 4  # rows of scales: what the TMA unit wants is 16 bytes
_FIRST_PACKED_MAJOR = 10


def linear(deep_gemm: Any, shape: Mapping[str, int], rows: int) -> None:
    """A linear layer, as `vllm.utils.deep_gemm.fp8_gemm_nt` is called for it.

    Args:
        deep_gemm: The library.
        shape: `n` and `k` of the weight, `major` of the device's architecture.
        rows: Of the input, one for each token.
    """
    n, k, major = shape["n"], shape["k"], shape["major"]
    weight = _weight((n, k), major)
    deep_gemm.fp8_gemm_nt((_empty((rows, k), _FP8), _scales(rows, k, major)), weight, _empty((rows, n), torch.bfloat16))


def experts(deep_gemm: Any, shape: Mapping[str, int], tokens: int) -> None:
    """One GEMM of an MoE layer over the tokens of each of its experts, as `DeepGemmExperts.apply` makes it.

    Args:
        deep_gemm: The library.
        shape: `groups` (experts of this rank), `n` and `k` of a weight, `top_k`, `is_first` (the input is the permuted one), and
            `major`.
        tokens: That reach the layer.
    """
    n, k, groups, major = shape["n"], shape["k"], shape["groups"], shape["major"]
    rows, alignment = aligned_rows(deep_gemm, tokens, shape["top_k"], groups)
    weight = _weight((groups, n, k), major)
    # The permutation leaves scales in rows; the activation's are as the GEMM wants them.
    scales = _empty((rows, k // _BLOCK), torch.float32) if shape["is_first"] else _scales(rows, k, major)
    with _alignment(deep_gemm, alignment):
        deep_gemm.m_grouped_fp8_gemm_nt_contiguous(
            (_empty((rows, k), _FP8), scales),
            weight,
            _empty((rows, n), torch.bfloat16),
            _empty((groups,), torch.int32),
            use_psum_layout=True,
        )


def scales(deep_gemm: Any, shape: Mapping[str, int], tokens: int) -> None:
    """The scales of a weight as vLLM transforms them when it has loaded them; on Hopper nothing is launched for it.

    Args:
        deep_gemm: The library.
        shape: `groups`, `n` and `k` of the weight.
        tokens: There are none yet.
    """
    del tokens
    n, k, groups = shape["n"], shape["k"], shape["groups"]
    checkpoint = _empty((groups, -(-n // _BLOCK), -(-k // _BLOCK)), torch.float32)
    deep_gemm.transform_sf_into_required_layout(
        sf=checkpoint, mn=n, k=k, recipe=(1, _BLOCK, _BLOCK), num_groups=groups, is_sfa=False
    )


def aligned_rows(deep_gemm: Any, tokens: int, top_k: int, groups: int) -> tuple[int, int]:
    """Rows of the permuted input, and to what each expert's are padded: vLLM's `compute_aligned_M_and_alignment`."""
    routed, alignment = tokens * top_k, int(deep_gemm.get_mk_alignment_for_contiguous_layout())
    smaller = _theoretical_alignment(deep_gemm, routed, groups)
    if smaller and smaller <= alignment:
        alignment = smaller
    rows = routed + min(routed, groups) * (alignment - 1)
    return -(-rows // alignment) * alignment, alignment


def _theoretical_alignment(deep_gemm: Any, routed: int, groups: int) -> int | None:
    """What DeepGEMM would choose; None where it does not take the question as vLLM asks it, which vLLM then ignores."""
    ask = deep_gemm.get_theoretical_mk_alignment_for_contiguous_layout
    try:
        return int(ask(routed, groups))
    except TypeError:  # vLLM's second attempt, for a library whose functions are Python's
        return int(ask(-(-routed // groups)))
    except Exception:  # noqa: BLE001 - as vLLM does
        return None


@contextmanager
def _alignment(deep_gemm: Any, value: int) -> Any:
    before = deep_gemm.get_mk_alignment_for_contiguous_layout()
    deep_gemm.set_mk_alignment_for_contiguous_layout(value)
    try:
        yield
    finally:
        deep_gemm.set_mk_alignment_for_contiguous_layout(before)


CALLS = {"linear": linear, "experts": experts, "scales": scales}


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Address space and no memory: nobody writes to it."""
    return torch.empty(shape, dtype=dtype)


def _scales(rows: int, k: int, major: int) -> torch.Tensor:
    """Of activations: a column for each block, columns aligned; since Blackwell four exponents in an int32."""
    if major < _FIRST_PACKED_MAJOR:
        return _columns(rows, k // _BLOCK, torch.float32)
    return _columns(rows, -(-k // (_BLOCK * _PACKED)), torch.int32)


@lru_cache(maxsize=1)
def _weight(shape: tuple[int, ...], major: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight and its scales as they are after loading: one for each block, or since Blackwell packed exponents for each row."""
    *groups, n, k = shape
    if major < _FIRST_PACKED_MAJOR:
        return _empty(shape, _FP8), _empty((*groups, -(-n // _BLOCK), -(-k // _BLOCK)), torch.float32)
    return _empty(shape, _FP8), _columns(n, -(-k // (_BLOCK * _PACKED)), torch.int32, *groups)


def _columns(rows: int, columns: int, dtype: torch.dtype, *groups: int) -> torch.Tensor:
    aligned = -(-rows // _ALIGNED) * _ALIGNED
    strides = (*[aligned * columns for _ in groups], 1, aligned)
    return torch.empty_strided((*groups, rows, columns), strides, dtype=dtype)
