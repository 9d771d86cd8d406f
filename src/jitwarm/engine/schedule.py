"""In which order the keys of a plan are begun."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import count

from jitwarm.engine.plan import PlannedKernel, PlannedKey

Item = tuple[PlannedKernel, PlannedKey]


def longest_first(items: Iterable[Item], expected_s: Callable[[Item], float]) -> list[Item]:
    """For a start that builds everything: what is begun last should not be what takes longest."""
    return sorted(items, key=lambda item: -expected_s(item))


def first_of_each_first(items: Iterable[Item]) -> list[Item]:
    """For a start with a budget: the first key of every kernel, then the second of each, and so on.

    A request runs every kernel, with one key each; and authors list the likeliest key first.
    """
    n_before: dict[str, count[int]] = defaultdict(count)
    return [
        item for _, item in sorted(((next(n_before[item[0].id]), item) for item in items), key=lambda pair: pair[0])
    ]


class ExpectedSeconds:
    """How long a key will take: as it did before, in whatever version; else as its kernel's others; else as its backend's do.

    Args:
        timings: `(kernel id, key text, seconds)` of keys that were built before.
        of_backend: Seconds by the name of a backend.
    """

    def __init__(self, timings: Sequence[tuple[str, str, float]], of_backend: dict[str, float]) -> None:
        self._of_key = {(kernel, key): seconds for kernel, key, seconds in timings}
        of_kernel = defaultdict(list)
        for kernel, _, seconds in timings:
            of_kernel[kernel].append(seconds)
        self._of_kernel = {kernel: statistics.median(seconds) for kernel, seconds in of_kernel.items()}
        self._of_backend = of_backend

    def __call__(self, item: Item) -> float:
        """Seconds that building it is expected to take."""
        kernel, key = item
        known = self._of_key.get((kernel.id, key.text), self._of_kernel.get(kernel.id))
        return self._of_backend.get(kernel.backend or "", 1.0) if known is None else known
