"""Dispatch functions as people write them. `m` is a large input, `k` and `dt` are small ones."""

import math
from dataclasses import dataclass, field
from functools import lru_cache


@dataclass(frozen=True)
class Key:
    a: object = 0
    b: object = 0


def cdiv(a, b):
    return (a + b - 1) // b


def next_power_of_2(n):
    power = 1
    while power < n:
        power *= 2
    return power


@dataclass
class Layer:
    """State that a method reads."""

    limits: tuple = (16, 128)
    tiles: dict = field(default_factory=lambda: {1: 16, 2: 32, 8: 64})

    def dispatch(self, *, m, k, dt):
        tile = self.tiles.get(k, 128)
        for limit in self.limits:
            if m <= limit:
                return Key(tile, limit)
        return Key(tile, self.is_wide(m))

    def is_wide(self, m):
        return m > self.limits[-1] * 8


@lru_cache
def cached_half(n):
    return n // 2


def chain(*, m, k, dt):
    if m * k <= 64:
        return Key(16, dt)
    if m <= 512:
        return Key(64, dt)
    return Key(128, dt)


def table_loop(*, m, k, dt):
    for t in (16, 64, 256, 1024):
        if m * k <= t:
            break
    else:
        return Key("big", dt)
    return Key(t)


def doubling(*, m, k, dt):
    return Key(min(next_power_of_2(cdiv(m, 64)), 64), max(k, 2))


def nearest(*, m, k, dt):
    return Key(min([16, 32, 64, 128, 256], key=lambda t: abs(t - m)), 1)


def residues(*, m, k, dt):
    return Key(m % 16 == 0, (m & 7) == 3 or (m >> 3) % 2 == 1)


def manual_modulo(*, m, k, dt):
    return Key((m - m // 16 * 16) // 3)


def wave(*, m, k, dt):
    return Key(cdiv(m, 64) % 132 == 0, k > 2)


def occupancy(*, m, k, dt):
    ratio = m / (k * 8)
    return Key(math.ceil(min(ratio, 4)), round(min(ratio, 2) * 2))


def matched(*, m, k, dt):
    match (m <= 64, k):
        case (True, 1 | 2):
            return Key("s")
        case (True, x) if x > 6:
            return Key("sx", x)
        case (False, _):
            return Key("l", m % 16 == 0)
        case _:
            return Key("o")


def walrus(*, m, k, dt):
    if (tiles := cdiv(m, 128)) > 4 and (rest := m % 128) != 0:
        first, *others = (tiles, rest > 64, k)
        return Key(min(first, 9), tuple(others))
    return Key(None)


def refusing(*, m, k, dt):
    assert m % 3 != 1
    if dt is None:
        raise ValueError(f"no {m}")
    return Key(f"b{k}-{min(m // 1000, 3)}", sum(m > t for t in (10, 100, 1000)))


def bits(*, m, k, dt):
    return Key(m & (m - 1) == 0, ((m | 63) == m, (m ^ 5) < m, ~m & 1))


def padding(*, m, k, dt):
    pad = cdiv(m, 64) * 64 - m
    return Key(pad > 32, sorted([(pad, 1), (k * 8, 2), (20, 3)])[1][1])


def typed(*, m, k, dt):
    kind = "none" if dt is None else "text" if isinstance(dt, str) else "other"
    return Key(kind, (math.gcd(m, 16), m.bit_length() > 9, type(m) is int))


def comprehended(*, m, k, dt):
    fits = [t for t in (32, 64, 512) if t >= m]
    return Key(len(fits), any(m == t for t in (1, 77)) or all(m > t for t in (5, 6)))


def built(*, m, k, dt):
    fields = {"a": m >> 9, "b": k}
    fields["a"] = min(fields["a"], 3)
    return Key(**fields)


def helper_without_source(*, m, k, dt):
    return Key(cached_half(min(m, 40)) > 10, k)


def stepwise(*, m, k, dt):
    total = 0
    for step in range(min(m, 6)):
        if step == 4:
            continue
        total += step
    return Key(total, divmod(m, 100)[1] == 0)


def padded_rows(*, m, k, dt):
    """A tile by powers of two inside `// tile * tile`: opaque, unless the tile is taken apart by its values."""
    tile = min(max(1 << (cdiv(m * k, 128) - 1).bit_length(), 16), 128)
    padded = cdiv(m * k, tile) * tile
    return Key(tile, padded % 16 == 0 and padded != m * k)


def tail_wave(*, m, k, dt):
    """Its residues have the modulus 37,888, but few runs."""
    tiles = cdiv(m, 256) * cdiv(k, 2)
    return Key(tiles >= 148, tiles % 148 == 0)


IDIOMS = [
    chain, table_loop, doubling, nearest, residues, manual_modulo, wave, occupancy, matched, walrus, refusing, bits, padding,
    typed, comprehended, built, helper_without_source, stepwise, Layer().dispatch, padded_rows, tail_wave,
]  # fmt: skip
# Analysed without touching every value, so that their cost does not follow the size of the domain.
BY_REGIONS = [idiom for idiom in IDIOMS if idiom is not bits]
