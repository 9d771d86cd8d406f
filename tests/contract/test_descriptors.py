"""Compile-only descriptors of arguments."""

import pytest

from jitwarm import Dim, IntClass, TensorSpec
from jitwarm.errors import InvalidKernelError


@pytest.mark.parametrize(
    ("dtype", "size"), [("float8_e4m3fn", 1), ("bfloat16", 2), ("float32", 4), ("int64", 8), ("bool", 1)]
)
def test_item_sizes_are_torchs(dtype, size):
    assert TensorSpec(dtype, (4,)).itemsize_bytes == size
    torch = pytest.importorskip("torch")
    assert getattr(torch, dtype).itemsize == size


def test_storage_is_known_where_every_extent_is():
    assert TensorSpec("bfloat16", (4, 8)).storage_bytes == 64
    assert TensorSpec("bfloat16", ("m", 8)).storage_bytes is None
    assert TensorSpec("bfloat16", (Dim("m", 16), 8)).storage_bytes is None
    assert TensorSpec("bfloat16", ("m", 8), ptr_range_bytes=2**31).storage_bytes == 2**31


@pytest.mark.parametrize("dtype", ["bf16", "torch.bfloat16", "", "complex64"])
def test_an_unknown_dtype_is_refused_with_the_known_ones(dtype):
    with pytest.raises(InvalidKernelError, match="unknown dtype") as caught:
        TensorSpec(dtype, (4,))
    assert "bfloat16" in caught.value.hint


def test_strides_must_be_as_many_as_extents():
    with pytest.raises(InvalidKernelError, match="2 extents, but 1 strides"):
        TensorSpec("bfloat16", ("m", 8), strides=(1,))


@pytest.mark.parametrize(("dtype", "align_bytes"), [("bfloat16", 1), ("float32", 2), ("int64", 4), ("bool", 0)])
def test_a_promise_below_one_element_is_refused_with_the_least(dtype, align_bytes):
    with pytest.raises(InvalidKernelError, match=f"align_bytes={align_bytes} is less than one {dtype}") as caught:
        TensorSpec(dtype, (4,), align_bytes=align_bytes)
    assert f"{TensorSpec(dtype, (4,)).itemsize_bytes} bytes at least" in caught.value.hint


@pytest.mark.parametrize("more", [{"align_bytes": 4}, {"align_bytes": 128}, {"align_bytes": 1, "aligned": False}])
def test_an_alignment_of_one_element_or_more_and_none_at_all_are_fine(more):
    assert TensorSpec("float32", (4,), **more).align_bytes == more["align_bytes"]


def test_a_spec_can_stand_in_a_key():
    assert hash(TensorSpec("bfloat16", ("m", 8))) == hash(TensorSpec("bfloat16", ("m", 8)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, IntClass.ONE),
        (0, IntClass.MULTIPLE_OF_16),
        (16, IntClass.MULTIPLE_OF_16),
        (-32, IntClass.MULTIPLE_OF_16),
        (2, IntClass.OTHER),
        (-1, IntClass.OTHER),
        (2**31 - 1, IntClass.OTHER),
        (2**31, IntClass.MULTIPLE_OF_16_I64),
        (-(2**31), IntClass.MULTIPLE_OF_16),
        (-(2**31) - 1, IntClass.OTHER_I64),
        (2**31 + 1, IntClass.OTHER_I64),
    ],
)
def test_an_integer_has_the_class_that_triton_gives_it(value, expected):
    assert IntClass.of(value) is expected


def test_a_class_is_represented_by_an_integer_of_that_class():
    assert all(IntClass.of(member.value) is member for member in IntClass)
