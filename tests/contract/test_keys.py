"""Compile keys as data: canonical text, its way back, the digest."""

import enum
import hashlib
import json
import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from kits import FourMembers, Key

from jitwarm import UnencodableKey, decode_key, dtype_name, encode_key, key_digest
from jitwarm.contract.keys import distinct_keys, format_key
from jitwarm.errors import InvalidKernelError


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Tile:
    m: int
    n: int


@dataclass
class Unfrozen:
    m: int


class OddInt(int):
    """Carries a value that may mean more than its number."""


def free_function():
    pass


class FakeTensor:
    shape, dtype = (4,), "bfloat16"

    def data_ptr(self):
        return 0


def test_true_one_and_one_point_zero_are_three_keys():
    keys = [Key(1), Key(True), Key(1.0)]
    assert keys[0] == keys[1] == keys[2]  # which is why Python's equality decides nothing here
    assert len({encode_key(key) for key in keys}) == 3
    assert len({key_digest("p:k", encode_key(key)) for key in keys}) == 3


@pytest.mark.parametrize(
    ("value", "leaf"),
    [
        (None, ["none", ""]),
        (True, ["bool", "true"]),
        (1, ["int", "1"]),
        (1.5, ["float", "0x1.8000000000000p+0"]),
        ("x", ["str", "x"]),
        (b"\x00\xff", ["bytes", "00ff"]),
        ((1, "a"), ["tuple", [["int", "1"], ["str", "a"]]]),
        (frozenset({2, 1}), ["frozenset", [["int", "1"], ["int", "2"]]]),
        (Color.RED, ["enum", f"{__name__}:Color.RED"]),
        (FakeTensor, ["class", f"{__name__}:FakeTensor"]),
        (free_function, ["function", f"{__name__}:free_function"]),
        (Tile(1, 2), ["dataclass", f"{__name__}:Tile", {"m": ["int", "1"], "n": ["int", "2"]}]),
    ],
)
def test_every_leaf_carries_its_type(value, leaf):
    """The text is what manifests hold: it may not change without a new digest domain."""
    assert json.loads(encode_key(Key(value))) == {"n": leaf}


def test_fields_are_sorted_whatever_order_they_are_declared_in():
    @dataclass(frozen=True)
    class Declared:
        b: int
        a: int

    assert encode_key(Declared(b=1, a=2)) == '{"a":["int","2"],"b":["int","1"]}'


def test_digest_is_over_domain_kernel_and_text():
    text = encode_key(Key(1))
    assert key_digest("p:k", text) == hashlib.sha256(f"jitwarm-key-1\0p:k\0{text}".encode()).hexdigest()
    assert key_digest("p:k", text) != key_digest("p:other", text)


@pytest.mark.parametrize(
    "value",
    [
        -0.0,
        math.inf,
        math.nan,
        2**70,
        "ü\n\0\ud800",
        Color.BLUE,
        Level.LOW,
        int,
        Tile,
        free_function,
        ((), frozenset()),
        Tile(1, 2),
    ],
)
def test_decoding_gives_a_key_of_the_same_text(value):
    text = encode_key(Key(value))
    assert encode_key(decode_key(FourMembers(), text)) == text


def test_dtypes_keep_the_library_that_they_are_of():
    torch, language = pytest.importorskip("torch"), pytest.importorskip("triton.language")
    of_torch, of_triton = encode_key(Key(torch.bfloat16)), encode_key(Key(language.bfloat16))
    assert json.loads(of_torch) == {"n": ["dtype", "bfloat16"]}
    assert of_triton not in (of_torch, encode_key(Key("bfloat16")))
    assert decode_key(FourMembers(), of_torch).n is torch.bfloat16
    assert decode_key(FourMembers(), of_triton).n == language.bfloat16


def test_a_union_of_flags_comes_back():
    text = encode_key(Key(Access.READ | Access.WRITE))
    assert decode_key(FourMembers(), text).n == Access.READ | Access.WRITE


def test_a_field_that_is_computed_comes_back():
    @dataclass(frozen=True)
    class Computed:
        m: int
        double: int = field(init=False)

        def __post_init__(self):
            object.__setattr__(self, "double", 2 * self.m)

    text = encode_key(Computed(2))
    assert decode_key(SimpleNamespace(CompileKey=Computed), text) == Computed(2)


@pytest.mark.parametrize(
    ("value", "instead"),
    [
        ([1], "tuple"),
        ({1}, "frozenset"),
        ({"a": 1}, "tuple of pairs"),
        (FakeTensor(), "dtype_name"),
        (Unfrozen(1), "frozen=True"),
        (lambda: 0, "top level"),
        (OddInt(1), "int"),
        (object(), "frozen dataclass"),
    ],
)
def test_a_value_without_a_text_is_refused_with_its_field_and_what_to_store(value, instead):
    with pytest.raises(UnencodableKey) as caught:
        encode_key(Key((0, value)))
    assert "Key.n[1]" in caught.value.message
    assert instead in caught.value.hint


def test_a_class_that_no_import_path_leads_to_is_refused():
    class Local:
        pass

    with pytest.raises(UnencodableKey, match="import path"):
        encode_key(Key(Local))


def test_a_tensor_is_called_a_tensor():
    with pytest.raises(UnencodableKey, match="holds a tensor"):
        encode_key(Key(FakeTensor()))


@pytest.mark.parametrize("key", [Unfrozen(1), 3, None, Key])
def test_only_frozen_dataclasses_are_keys(key):
    with pytest.raises(InvalidKernelError, match="frozen"):
        encode_key(key)


def test_the_text_of_another_version_of_the_kernel_is_refused_with_both_lists_of_fields():
    with pytest.raises(UnencodableKey, match=r"fields m, n, but Key has n") as caught:
        decode_key(FourMembers(), encode_key(Tile(1, 2)))
    assert "list its keys again" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        '{"n":["quaternion","1"]}',
        '{"n":["class","no_such_module:X"]}',
        '{"n":["enum","kits:Gone.RED"]}',
        "",
        "{",
        "[1]",
    ],
)
def test_a_text_that_cannot_be_read_is_refused_by_name(text):
    with pytest.raises(UnencodableKey):
        decode_key(FourMembers(), text)


def test_an_adapters_further_key_classes_are_decoded_too():
    @dataclass(frozen=True)
    class Local:
        key: Key
        choice: int

    kernel = SimpleNamespace(CompileKey=Key, extra_key_types=(Local,))
    text = encode_key(Local(Key(True), 2))
    assert decode_key(kernel, text) == Local(Key(True), 2)
    assert encode_key(decode_key(kernel, text)) == text


def test_distinct_keys_tells_one_from_true_and_drops_repeats():
    assert [encode_key(key) for key in distinct_keys([Key(1), Key(True), Key(1)])] == [
        encode_key(key) for key in (Key(1), Key(True))
    ]


def test_distinct_keys_are_in_the_order_of_their_first_occurrence():
    assert distinct_keys([Key("a"), Key("b"), Key("a"), Key("c")]) == [Key("a"), Key("b"), Key("c")]


def test_a_key_is_shown_by_names_and_values():
    assert format_key(Tile(16, 8)) == "m=16, n=8"
    assert format_key(Key(Color.RED)) == "n=RED"


@pytest.mark.parametrize(("dtype", "name"), [("bfloat16", "bfloat16"), ("torch.float8_e4m3fn", "float8_e4m3fn")])
def test_dtype_name_of_a_tensor_and_of_a_configuration_agree(dtype, name):
    assert dtype_name(dtype) == name
