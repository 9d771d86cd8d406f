"""What random programs are made of: the expressions and tests that they choose from, and the names in them."""

import enum
import functools
import math
from dataclasses import dataclass

try:
    from triton import cdiv as triton_cdiv
    from triton import next_power_of_2
except ImportError:  # an environment without Triton: the same values, by functions that are followed like any other

    def triton_cdiv(x, y):
        return (x + y - 1) // y

    def next_power_of_2(n):
        return 1 << (n - 1).bit_length()


class Mode(enum.Enum):
    FAST = 1
    SLOW = 2


@dataclass
class Layer:
    limit: int = 33
    tiles: tuple = (16, 64)


@dataclass(frozen=True)
class Key:
    a: object = None
    b: object = None


def helper_cdiv(a, b):
    return (a + b - 1) // b


def helper_bucket(n, step=64):
    """A helper with control flow of its own."""
    bucket = step
    while bucket < n and bucket < 4096:
        bucket *= 2
    return bucket if n > 0 else 0


def helper_pick(n, table):
    for limit, value in table:
        if n <= limit:
            return value
    return table[-1][1]


def helper_mode(n):
    return Mode.FAST if n % 3 == 0 else Mode.SLOW


@functools.lru_cache
def helper_half(n):
    if n < 0:
        return -1
    return n // 2


NUMBERS = [
    "({a} + {b})", "({a} - {b})", "({a} * {c})", "({a} + {c})", "({a} // {c})", "({a} % {c})", "({a} & {p})", "({a} & -{p})",
    "({a} | {p})", "({a} ^ {p})", "({a} >> {s})", "({a} << {s})", "(-{a})", "(~{a})", "abs({a})", "min({a}, {b})",
    "max({a}, {c})",
    "cdiv({a}, {p})", "bucket({a})", "int({a} / {c})", "math.ceil({a} / {p})", "math.floor({a} * 0.3)", "round({a} / {p})",
    "({a} if {t} else {b})", "sum(x for x in (1, 2, 30) if x < {a})", "len([t for t in (8, 32, 128) if {a} >= t])",
    "math.gcd({a}, {p})", "(w := {a})", "({a} * {b})", "sorted(({a}, {b}, {c}))[1]", "({a} ** 2)", "[{a}, {b}][{t}]", "(+{a})",
    "min((8, 32, 128), key=lambda t: abs(t - {a}))", "max({a}, 0).bit_length()", "divmod({a}, {c})[1]", "({a} // ({b} or 1))",
    "{{1: 5, 2: 6, 8: 7}}.get({a}, {c})", "dict(zip('ab', ({a}, {b})))['a']", "next((x for x in (4, 64) if x > {a}), {b})",
    "(cdiv({a}, {p}) * {p} - {a})", "({a} % ({b} % 5 + 1))", "math.isqrt(abs({a}))", "int(math.log2(max({a}, 1)))",
    "triton_cdiv({a}, {p})", "next_power_of_2(max({a}, 1))", "(1 << ((max({a}, 1) - 1).bit_length()))",
    "int.bit_length(abs({a}))",
    "sum(({a}, {b}, 5)[1:])", "len((1, 2, 3)[:{a} % 4])", "[8, 16, {a}][::-1][0]",
    "max(i * t for i, t in enumerate((1, {a}, 3)))",
    "sum(x for x, y in zip((1, 2, 3), ({a}, 9, k)) if y > 4)", "sorted((5, {a}, -9), key=lambda t: -t)[0]",
    "max(({a}, {b}), key=lambda t: t % 7)", "(lambda x, y=2: x * y)({a})", "{{t: t * 2 for t in (1, k)}}[k]",
    "len({{t % 3 for t in (1, {a})}})", "int({a} * 0.25 + {c})", "half({a})", "by_three({a})", "self.bucketed({a})",
    "Mode.SLOW.value * {a}", "LAYER.limit - {a}", "Layer({a} % 3).limit", "(cdiv({a}, 128) % 13)", "({a} and {b})",
    "({a} or {b})",
    "round({a} / {p} * 1.5)", "({a} // {p} * {p})", "(lambda: {a})()", "sum([1 for t in range(3) if t <= {a}])",
]  # fmt: skip
TESTS = [
    "{a} <= {c}", "{a} > {c}", "{a} == {c}", "{a} != {c}", "{a} < {b}", "{a} >= {b}", "{a} % 16 == 0", "({a} & 7) == 3",
    "{c} <= {a} < {d}", "{a} in (1, 8, 64)", "{a} in range(3, 90, 4)", "{a} not in {{16, 17}}", "{a} / 3 <= {c}", "dt is None",
    "dt == 1", "dt is not True", "dt in ('bf16', None)", "isinstance(dt, str)", "k in (1, 2)", "k > {e}", "self.is_small({a})",
    "{a} > self.limit", "pick({a}, TABLE) == 'm'", "any({a} > t for t in (8, 80))", "all(t < {a} for t in (2, 20))", "bool({a})",
    "type({a}) is int", "{a} & ({a} - 1) == 0", "{a} * 0.1 < {b} / 7",
    "0 < {a} in (1, 5, 64)", "{a} < k is not dt", "1 <= {a} % 7 not in (2, 3) != {e}", "not {a} % 3",
    "any(i == {a} % 4 for i, t in enumerate((5, 6, 7)) if t > {b})", "mode_of({a}) is Mode.FAST", "{a} in LAYER.tiles",
    "Mode({e} % 2 + 1) is Mode.FAST", "type(self).limit < {a}", "{a} > LAYER.limit >= k", "dt == k is not None",
    "{a} == {b} == {c}",
    "f'{{k}}' == '1'", "{a} < 40 and f'{{m % 2}}' == '0'", "isinstance({a}, (int, str))",
]  # fmt: skip


class Owner:
    """Gives the generated method something to read."""

    limit = 96
    table = ((16, "s"), (64, "m"), (512, "l"))
    names = {0: "zero", 1: "one", 7: "seven"}

    def is_small(self, n):
        return n < self.limit

    def bucketed(self, n):
        for limit, name in self.table:
            if name == "m":
                continue
            if n <= limit:
                break
        else:
            return -1
        return limit


SCOPE = {
    "Key": Key, "math": math, "cdiv": helper_cdiv, "bucket": helper_bucket, "pick": helper_pick, "TABLE": Owner.table,
    "triton_cdiv": triton_cdiv, "next_power_of_2": next_power_of_2, "Mode": Mode, "mode_of": helper_mode, "half": helper_half,
    "Layer": Layer, "LAYER": Layer(), "by_three": functools.partial(helper_cdiv, b=3), "functools": functools,
}  # fmt: skip
CONDITIONS = [
    "m + k <= 77",
    "m % k == 0",
    "m * k < 300 or k > 2",
    "m != 17 or dt is None",
    "not (dt == 1 and m > 40)",
    "k < m < 200",
]
