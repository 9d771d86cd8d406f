"""From a dispatch and one box of its domain to regions: each a set of inputs with one key, proven by a call of the real function.

What the lifted run says is never taken on trust: each region is confirmed by one call of the author's own function at a
point of it, and a region where the two disagree is halved until the real function settles every point. That check stays on in
production. (Without a call goes only what needs none: under facts at which no point was found, a key that is known already.)
"""

import contextlib
import functools
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any

from jitwarm.contract.keys import encode_key, key_identity
from jitwarm.tracing import nodes
from jitwarm.tracing.budget import Budget
from jitwarm.tracing.calls import Hooks, Outside, concrete
from jitwarm.tracing.engine import Abandon, Engine
from jitwarm.tracing.lift import Site
from jitwarm.tracing.number import Number
from jitwarm.tracing.source import UntraceableError
from jitwarm.tracing.spans import Span
from jitwarm.tracing.symbols import Choice

# Up to here the values of an int input are taken one by one, at its first use, like those of any other small space.
_MAX_ENUMERATED = 8

Real = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Region:
    """Inputs that reach one key.

    Attributes:
        key: Index of the key.
        inputs: The values of each input in the region, as declared order and positions: input name -> (values, span).
        facts: Conditions over several inputs that hold in the region, too, in the author's words.
        witness: One input of the region.
        rank: Position of the witness in the domain; orders keys.
    """

    key: int
    inputs: Mapping[str, tuple[Sequence[Any], Span]]
    facts: tuple[str, ...]
    witness: Mapping[str, Any]
    rank: tuple[int, ...]


@dataclass
class Found:
    """What has been found so far, over all boxes of a domain."""

    keys: list[Any] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    outside: Mapping[str, Any] | None = None
    enumerated: dict[str, Site | None] = field(default_factory=dict)  # input -> what first asked for its every value
    opaque: dict[str, str] = field(default_factory=dict)  # helper -> why it was called with plain values
    n_disagreements: int = 0
    index: dict[str, int] = field(default_factory=dict)
    _quick: dict[Any, int] = field(default_factory=dict)

    def has(self, key: Any) -> bool:
        """Whether a key is among them."""
        return key_identity(key) in self._quick or encode_key(key) in self.index

    def add(self, key: Any) -> int:
        """The index of a key, new or not."""
        identity = key_identity(key)
        if identity not in self._quick:
            text = encode_key(key)
            if text not in self.index:
                self.index[text] = len(self.keys)
                self.keys.append(key)
            self._quick[identity] = self.index[text]
        return self._quick[identity]


class Search:
    """The regions of one box of the domain; `run` adds them to `found`.

    Args:
        functions: `dispatch`, and before it `when` if there is one.
        box: Input name -> its values.
        real: The key at a point by the author's own functions; None where the point is outside. May raise the author's error.
        budget: Evaluations that may be spent.
        found: Is added to.
        n_box: Position of this box among the domain's.

    Raises:
        UntraceableError: A function has no usable source, or uses syntax that symbols cannot pass through.
    """

    def __init__(
        self,
        functions: Sequence[Callable[..., Any]],
        box: Mapping[str, Sequence[Any]],
        real: Real,
        budget: Budget,
        found: Found,
        n_box: int,
    ) -> None:
        self._box = box
        self._names = list(box)
        self._real = real
        self._found = found
        self._n_box = n_box
        self._engine = Engine([len(values) for values in box.values()], budget)
        self._hooks = Hooks(self._engine)
        self._inputs = {name: self._symbol(axis, values) for axis, (name, values) in enumerate(box.items())}
        self._calls = [self._prepared(function) for function in functions]

    def run(self) -> None:
        """Follow the functions until every point of the box is in a region, or outside.

        Raises:
            UntraceableError: A helper is handed code that works on symbols, but has no usable source itself.
            Exhausted: The budget is spent.
        """
        try:
            for _ in self._engine.items():
                self._run_item()
        finally:
            for axis, site in self._engine.enumerated.items():
                self._found.enumerated.setdefault(self._names[axis], site)
            self._found.opaque.update(self._hooks.opaque)

    def _run_item(self) -> None:
        if self._engine.is_point:
            self._settle_point(self._engine.low_corner)
            return
        try:
            key = self._lifted_key()
        except Abandon:
            return
        except Outside:
            key = None
        except UntraceableError:
            raise
        except Exception:  # noqa: BLE001 - the author's code may raise anything; the real function says what it means
            key = _FAILED
        with contextlib.suppress(Abandon):
            self._settle(key)

    def _symbol(self, axis: int, values: Sequence[Any]) -> Any:
        if len(values) == 1:
            return values[0]
        if isinstance(values, range) and len(values) > _MAX_ENUMERATED:
            return Number(self._engine, nodes.leaf(axis, values))
        return Choice(self._engine, axis, values)

    def _prepared(self, function: Callable[..., Any]) -> Callable[[], Any]:
        """The lifted function, ready to be called with the inputs that it takes."""
        target, given, bound = _unbound(function)
        if not isinstance(target, types.FunctionType):
            raise UntraceableError(f"{function!r} is no Python function")
        code = target.__code__
        lifted = self._hooks.lifted.lift(target)
        accepted = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        takes_all = bool(code.co_flags & 0x08)  # **kwargs
        inputs = {name: value for name, value in self._inputs.items() if takes_all or name in accepted}
        return lambda: lifted(*given, **{**bound, **inputs})

    def _lifted_key(self) -> Any:
        """The key of the whole box, or None outside the domain."""
        *conditions, dispatch = self._calls
        for condition in conditions:
            if not condition():
                return None
        key = concrete(dispatch())
        # What is no key is the real function's to be reported, with the inputs that lead there.
        return key if is_dataclass(key) else _FAILED

    def _settle(self, key: Any) -> None:
        """Record the outcome of a box, after the real function has confirmed it; a box where it does not is halved.

        The one outcome that may go without is a key that is known already, under facts at which no point was found.
        """
        engine, found = self._engine, self._found
        is_known = key is not _FAILED and key is not None and found.has(key)
        point = engine.likely_witness() if is_known and engine.facts else engine.witness()
        if point is None:
            if is_known:
                return  # perhaps an empty region: its key is known, and so nothing is lost
            engine.halve()
        inputs = self._at(point)
        confirmed = self._real(inputs)  # raises the author's own error, with these inputs, if there is one
        if key is None and confirmed is None:
            found.outside = found.outside or inputs
        elif key is not _FAILED and key is not None and confirmed is not None and _are_same(key, confirmed):
            self._record(confirmed, point)
        else:
            found.n_disagreements += 1
            engine.halve()

    def _settle_point(self, point: Sequence[int]) -> None:
        """A box of one point: its key is what the real function says, whatever was assumed on the way here."""
        self._engine.facts = []
        key = self._real(self._at(point))
        if key is None:
            self._found.outside = self._found.outside or self._at(point)
        else:
            self._record(key, point)

    def _record(self, key: Any, point: Sequence[int]) -> None:
        index = self._found.add(key)
        spans = {n: (v, s) for (n, v), s in zip(self._box.items(), self._engine.spans, strict=True)}
        rank = (self._n_box, *point)
        self._found.regions.append(Region(index, spans, self._facts(), self._at(point), rank))

    def _facts(self) -> tuple[str, ...]:
        texts = self._engine.fact_texts
        return tuple(dict.fromkeys(filter(None, (texts.get((id(test), truth)) for test, truth in self._engine.facts))))

    def _at(self, point: Sequence[int]) -> dict[str, Any]:
        return {name: values[i] for (name, values), i in zip(self._box.items(), point, strict=True)}


def _are_same(key: Any, other: Any) -> bool:
    return bool(key_identity(key) == key_identity(other)) or encode_key(key) == encode_key(other)


def _unbound(function: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """What a method or partial calls in the end, and the positional and named arguments that it adds."""
    given: tuple[Any, ...] = ()
    named: dict[str, Any] = {}
    while isinstance(function, functools.partial | types.MethodType):
        if isinstance(function, types.MethodType):
            function, given = function.__func__, (function.__self__, *given)
        else:
            function, given, named = function.func, (*function.args, *given), {**function.keywords, **named}
    return function, given, named


_FAILED = object()
