"""What a lifted function computes with: values that stand for all points of the current box.

`Truth` is decided when Python asks for its truth; `Choice` is one value of a small space and becomes concrete at its first use;
`number.Number` builds nodes. Whatever is asked of a symbol that has no better answer makes it concrete: the box is narrowed to
the points that share one value. So what is not modelled is slow, never wrong.
"""

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jitwarm.tracing.engine import Engine, Test
from jitwarm.tracing.lift import author_site
from jitwarm.tracing.places import expression_at


class Symbol:
    """Anything that stands for more than one value."""

    __slots__ = ("engine",)
    engine: Engine

    def concrete(self) -> Any:
        """Narrow the box until there is one value, and return it."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        return getattr(self.concrete(), name)

    def __int__(self) -> int:
        return int(self.concrete())

    def __float__(self) -> float:
        return float(self.concrete())

    def __str__(self) -> str:
        return str(self.concrete())

    def __format__(self, spec: str) -> str:
        return format(self.concrete(), spec)

    def __repr__(self) -> str:
        return repr(self.concrete())


def by_value(name: str) -> Callable[..., Any]:
    """A method that makes the symbol concrete and then asks the value."""

    def method(self: Symbol, *args: Any) -> Any:
        value = self.concrete()
        function = getattr(operator, name, None)
        return function(value, *args) if function else getattr(value, name)(*args)

    return method


def _reflected(name: str) -> Callable[..., Any]:
    def method(self: Symbol, other: Any) -> Any:
        return getattr(operator, name)(other, self.concrete())

    return method


_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and_", "or_", "xor", "matmul")
_COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")


class ByValue(Symbol):
    """A symbol whose every operation makes it concrete."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return bool(self.concrete())

    def __hash__(self) -> int:
        return hash(self.concrete())

    def __len__(self) -> int:
        return len(self.concrete())

    def __iter__(self) -> Iterator[Any]:
        return iter(self.concrete())

    def __contains__(self, item: Any) -> bool:
        return item in self.concrete()

    def __getitem__(self, key: Any) -> Any:
        return self.concrete()[key]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the value."""
        return self.concrete()(*args, **kwargs)

    def __index__(self) -> int:
        return operator.index(self.concrete())

    def __round__(self, *args: Any) -> Any:
        return round(self.concrete(), *args)

    def __ceil__(self) -> Any:
        return math.ceil(self.concrete())

    def __floor__(self) -> Any:
        return math.floor(self.concrete())

    def __trunc__(self) -> Any:
        return math.trunc(self.concrete())

    def __divmod__(self, other: Any) -> Any:
        return divmod(self.concrete(), other)

    def __rdivmod__(self, other: Any) -> Any:
        return divmod(other, self.concrete())


for _name in _BINARY:
    _stem = _name.rstrip("_")
    setattr(ByValue, f"__{_stem}__", by_value(_name))
    setattr(ByValue, f"__r{_stem}__", _reflected(_name))
for _name in _COMPARE:
    setattr(ByValue, f"__{_name}__", by_value(_name))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(ByValue, f"__{_name}__", by_value(_name))


class Choice(ByValue):
    """One of a few values of any type, undecided until it is used."""

    __slots__ = ("_axis", "_values")

    def __init__(self, engine: Engine, axis: int, values: Sequence[Any]) -> None:
        self.engine = engine
        self._axis = axis
        self._values = values

    def concrete(self) -> Any:
        """The first value that is left."""
        return self._values[self.engine.choose(self._axis)]


class Truth(ByValue):
    """The result of a comparison, undecided until Python asks."""

    __slots__ = ("_negated", "_site", "_test")

    def __init__(self, engine: Engine, test: Test, *, negated: bool = False) -> None:
        self.engine = engine
        self._test = test
        self._negated = negated
        self._site = author_site()

    def concrete(self) -> bool:
        """Decided for the whole box."""
        n_facts = len(self.engine.facts)
        truth = self.engine.truth(self._test)
        if len(self.engine.facts) > n_facts and self._site:  # it was assumed: keep the author's words for it
            text = expression_at(*self._site)[0]
            for assumed in (True, False):
                shown = text if assumed is not self._negated else f"not ({text})"
                self.engine.fact_texts.setdefault((id(self._test), assumed), shown)
        return truth is not self._negated
