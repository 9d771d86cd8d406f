"""For every key: its text comes back, says type and value and nothing else, and is the same in every process."""

import enum
import itertools
import json
import math
import sys
from dataclasses import dataclass
from typing import Any

import kits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kits import FourMembers, Key

from jitwarm import decode_key, encode_key, key_digest

SLOW = settings(deadline=None, max_examples=3, suppress_health_check=list(HealthCheck))
IN_ANOTHER_PROCESS = """
import json, sys
from kits import FourMembers
from jitwarm import decode_key, encode_key, key_digest
texts = json.load(sys.stdin)
print(json.dumps([key_digest("p:k", encode_key(decode_key(FourMembers(), text))) for text in texts]))
"""


class Color(enum.Enum):
    RED = 1
    BLUE = True + 1


@dataclass(frozen=True)
class Nested:
    a: Any
    b: Any = None


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary()
alike = st.sampled_from(
    [0, 1, True, False, 0.0, -0.0, 1.0, "", "1", "True", b"1", None, math.nan, int, bool, "kits:Key"]
)
ours = st.sampled_from([*Color, Nested, len, kits.python])


def nested(leaves):
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3).map(tuple)
            | st.frozensets(inner, max_size=3)
            | st.builds(Nested, inner, inner)
            | st.builds(Key, inner)
        ),
        max_leaves=8,
    )


def same(a, b):
    """Whether two values are of the same types and values throughout; what `==` cannot tell."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, frozenset):
        return len(a) == len(b) and any(all(map(same, a, order)) for order in itertools.permutations(b))
    if isinstance(a, Nested | Key):
        return all(same(getattr(a, name), getattr(b, name)) for name in vars(a))
    return a == b


@given(nested(plain | ours))
def test_a_decoded_key_has_the_text_and_the_values_that_were_encoded(value):
    text = encode_key(Key(value))
    decoded = decode_key(FourMembers(), text)
    assert encode_key(decoded) == text
    assert same(decoded, Key(value))


@settings(max_examples=500)
@given(nested(alike), nested(alike))
def test_texts_are_equal_exactly_where_types_and_values_are(a, b):
    assert (encode_key(Key(a)) == encode_key(Key(b))) == same(a, b)


@given(nested(plain))
def test_a_text_is_one_line_of_ascii(value):
    assert encode_key(Key(value)).isascii()
    assert "\n" not in encode_key(Key(value))


@SLOW
@given(st.lists(nested(plain | alike | st.frozensets(st.text(min_size=1), min_size=2)), min_size=50, max_size=80))
def test_digests_agree_with_a_process_of_another_hash_seed(values):
    texts = [encode_key(Key(value)) for value in values]
    for seed in ("0", "42"):
        done = kits.python(
            "-c", IN_ANOTHER_PROCESS, stdin=json.dumps(texts), PYTHONHASHSEED=seed, PYTHONPATH=":".join(sys.path)
        )
        assert kits.json_of(done) == [key_digest("p:k", text) for text in texts], done.stderr
