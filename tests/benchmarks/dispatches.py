"""Dispatch functions within the syntax that vLLM's tracer accepts: assignments, then one return of a compile key.

They are imitations of what real kernels decide: from the number of tokens `m` and a second axis `k` of a few values.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """What a kernel would be compiled for."""

    tile: int
    warps: int = 4
    splits: int = 1
    flag: bool = False


def cdiv(a, b):
    return (a + b - 1) // b


def next_power_of_2(n):
    return 1 << (n - 1).bit_length()


def thresholds(*, m, k):
    """Chained ternaries: tile and warps from the number of tokens."""
    tile = 16 if m <= 16 else 32 if m <= 64 else 64 if m <= 512 else 128
    return Key(tile=tile, warps=4 if tile <= 64 else 8, splits=k)


def power_of_two(*, m, k):
    """A tile that is a power of two, from a rounded-up quotient."""
    tile = next_power_of_2(min(cdiv(m, 8), 128))
    return Key(tile=max(tile, 16), warps=max(k, 4))


def split_k(*, m, k):
    """Fill 132 processors with splits of the reduction, within limits."""
    tiles = cdiv(m, 64) * k
    return Key(tile=64, splits=max(1, min(132 // tiles, 16)))


def alignment(*, m, k):
    """Integer classes as Triton's: one, divisible by 16, neither; and of the product, too."""
    return Key(tile=1 if m == 1 else 16 if m % 16 == 0 else 2, flag=m * k % 16 == 0)


def moe_block(*, m, k):
    """Mixture of experts: `k` experts for each token, tile from the rows per expert, a naive path for few rows."""
    rows = m * k
    naive = rows * 4 <= 128
    tile = 16 if naive else 16 if rows <= 2048 else 32 if rows <= 4096 else 64 if rows <= 16384 else 128
    return Key(tile=tile, warps=4 if tile < 128 else 8, flag=naive)


def moe_padded(*, m, k):
    """Mixture of experts: padded rows, and their class."""
    tile = min(max(next_power_of_2(cdiv(m * k, 128)), 16), 128)
    padded = cdiv(m * k, tile) * tile
    return Key(tile=tile, flag=padded % 16 == 0 and padded != m * k)


def tail_wave(*, m, k):
    """Whether the last wave of tiles is a full one; a small grid is split."""
    tiles = cdiv(m, 128) * cdiv(k, 2)
    return Key(tile=128, splits=1 if tiles >= 132 else 2, flag=tiles % 132 == 0)


def decode_or_prefill(*, m, k):
    """A decode kernel for few tokens with segments by power of two, a prefill kernel for many."""
    decode = m <= 8 * k
    segments = next_power_of_2(cdiv(m, k)) if decode else 1
    return Key(
        tile=16 if decode else 64,
        warps=4 if decode or m < 1024 else 8,
        splits=segments,
        flag=not decode and m % 64 == 0,
    )


ALL = (thresholds, power_of_two, split_k, alignment, moe_block, moe_padded, tail_wave, decode_or_prefill)
