"""Coverage: what was expected, what of it is warm, what was used, and what was missed; per kernel and per plugin."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jitwarm.reports.start import Key, Start, Unexpected, plugin_of


@dataclass(frozen=True)
class Coverage:
    """Counts of distinct keys, all ranks together. None is what nobody could see.

    Attributes:
        name: A kernel id, or `module:qualname` of a function that no plugin declares; or a plugin's name.
        plugin: Empty for a function that no plugin declares.
        expected: Planned keys.
        warmed: Those that are warm in each rank that planned them.
        loaded: Those of them that no rank had to compile.
        hit: Those that were seen in use.
        missed: Distinct compiles after the warm-up.
        never_used: Warm keys that nothing asked for.
        seconds: What its keys took.
        never_used_s: What those took that nothing asked for.
        missed_s: Lost to compiles after the warm-up.
    """

    name: str
    plugin: str
    expected: int
    warmed: int
    loaded: int
    hit: int | None
    missed: int | None
    never_used: int | None
    seconds: float
    never_used_s: float
    missed_s: float


def of_kernels(start: Start) -> list[Coverage]:
    """One for each planned kernel, in the plan's order, then one for each function that was compiled and is nobody's."""
    keys: dict[str, list[Key]] = {name: [] for name, *_ in start.kernels()}
    missed: dict[str, list[Unexpected]] = {}
    for key in start.keys.values():
        keys.setdefault(key.kernel, []).append(key)
    for unexpected in start.unexpected:
        missed.setdefault(unexpected.kernel or unexpected.function, []).append(unexpected)
    names = [*keys, *(name for name in missed if name not in keys)]
    return [_of_kernel(start, name, keys.get(name, []), missed.get(name, [])) for name in names]


def of_plugins(kernels: Iterable[Coverage]) -> list[Coverage]:
    """The sums of each plugin's kernels."""
    by_plugin: dict[str, list[Coverage]] = {}
    for kernel in kernels:
        by_plugin.setdefault(kernel.plugin, []).append(kernel)
    return [_summed(plugin, plugin, rows) for plugin, rows in by_plugin.items()]


def total(kernels: Sequence[Coverage]) -> Coverage:
    """The sums of all."""
    return _summed("", "", kernels)


def _of_kernel(start: Start, name: str, keys: Sequence[Key], missed: Sequence[Unexpected]) -> Coverage:
    warm = [key for key in keys if key.is_warm]
    is_seen = start.is_watched and name not in start.uses_unknown
    idle = [key for key in warm if not key.is_used] if is_seen else []
    return Coverage(
        name=name,
        plugin="" if missed and not missed[0].kernel else plugin_of(name),
        expected=len(keys),
        warmed=len(warm),
        loaded=sum(key.outcome == "loaded" for key in keys),
        hit=sum(key.is_used for key in keys) if is_seen else None,
        missed=len(missed) if start.is_watched or missed else None,
        never_used=len(idle) if is_seen else None,
        seconds=sum(key.seconds for key in keys),
        never_used_s=sum(key.seconds for key in idle),
        missed_s=sum(unexpected.seconds for unexpected in missed),
    )


def _summed(name: str, plugin: str, rows: Sequence[Coverage]) -> Coverage:
    return Coverage(
        name,
        plugin,
        sum(row.expected for row in rows),
        sum(row.warmed for row in rows),
        sum(row.loaded for row in rows),
        _known(row.hit for row in rows),
        _known(row.missed for row in rows),
        _known(row.never_used for row in rows),
        sum(row.seconds for row in rows),
        sum(row.never_used_s for row in rows),
        sum(row.missed_s for row in rows),
    )


def _known(counts: Iterable[int | None]) -> int | None:
    """The sum of what is known; None where nothing is."""
    found = [count for count in counts if count is not None]
    return sum(found) if found else None
