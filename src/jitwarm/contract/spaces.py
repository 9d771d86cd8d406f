"""Value spaces: which values an input of `dispatch` can take, before they are expanded to keys."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jitwarm.errors import DomainError


@dataclass(frozen=True)
class IntRange:
    """The integers `start, start + step, ...` below `stop`: half-open, like `range`.

    Raises:
        DomainError: A bound that is no int, a step below 1, or a range without a member.
    """

    start: int
    stop: int
    step: int = 1

    def __post_init__(self) -> None:
        for name in ("start", "stop", "step"):
            value = getattr(self, name)
            if type(value) is not int:
                raise DomainError(f"{self}: {name} must be an int, not {type(value).__name__}")
        if self.step < 1:
            low, high = (
                sorted((self.start, self.stop))
                if self.step == 0 or self.start < self.stop
                else (self.stop + 1, self.start + 1)
            )
            ascending = f"IntRange({low}, {high}, {abs(self.step) or 1})"
            raise DomainError(f"{self}: step must be 1 or more", f"write the range upwards, e.g. {ascending}")
        if self.stop < self.start:
            swapped = f"IntRange({self.stop}, {self.start}, {self.step})"
            raise DomainError(f"{self} has no member: start and stop look swapped", f"write {swapped}")
        if self.stop == self.start:
            raise DomainError(
                f"{self} has no member: stop is exclusive and must be greater than start",
                "write IntRange(1, n + 1) for 1..n; return [] from get_warmup_keys where there is nothing to warm",
            )

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop, self.step))

    def __len__(self) -> int:
        return len(range(self.start, self.stop, self.step))


@dataclass(frozen=True, init=False)
class Choices:
    """One of the given values, of any type. `Choices(1, True)` has two members.

    Raises:
        DomainError: No value is given.
    """

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        if not values:
            raise DomainError("Choices() has no member", "name at least one value")
        object.__setattr__(self, "values", values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Rows:
    """Coupled inputs: each row gives values, or spaces, for the same names. Made by `rows`."""

    mappings: tuple[Mapping[str, Any], ...]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.mappings)

    def __len__(self) -> int:
        return len(self.mappings)


def rows(*mappings: Mapping[str, Any]) -> Rows:
    """Inputs that vary together: a layer's head size with its window, say, instead of the product of both.

    Args:
        mappings: One mapping per row, all with the same names. A value may itself be a space.

    Raises:
        DomainError: No row, or rows with different names.
    """
    if not mappings:
        raise DomainError("rows() has no row", "return [] from get_warmup_keys where there is nothing to warm")
    names = set(mappings[0])
    for i, mapping in enumerate(mappings):
        if set(mapping) != names:
            odd = ", ".join(sorted(names ^ set(mapping)))
            raise DomainError(f"rows(): row {i} and row 0 differ in the names {odd}", "give every row the same names")
    return Rows(tuple(dict(m) for m in mappings))
