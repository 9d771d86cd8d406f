"""Calls, subscripts, `is` and `in` inside a lifted function.

The rule: only code that was rewritten, or is modelled here, is handed a symbol. Python functions with source are rewritten on
their first call. Everything else gets concrete values.
"""

import functools
import math
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jitwarm.tracing import nodes
from jitwarm.tracing.domain import function_name
from jitwarm.tracing.engine import Engine
from jitwarm.tracing.lift import CALL, FORCE, IN, IS, ITEM, OUTSIDE, SUBJECT, Lifted
from jitwarm.tracing.number import Number
from jitwarm.tracing.source import UntraceableError
from jitwarm.tracing.symbols import ByValue, Choice, Symbol, Truth

# They only iterate, compare, add, test or pass on, all of which symbols do themselves.
_TRANSPARENT = (
    min, max, sum, any, all, sorted, abs, divmod, enumerate, zip, map, filter, reversed, list, tuple, dict, set, frozenset,
    iter, next, len, slice, functools.reduce, math.ceil, math.floor, math.trunc, round,
)  # fmt: skip
_MAX_COMPARED = 64
_EXACT_LOG_BITS = 40


class Outside(BaseException):
    """`dispatch` refuses this box by `assert` or `raise`. No Exception, so that no handler takes it."""


class Hooks:
    """The hooks of one engine, by the names that rewritten code calls.

    `opaque` gathers which functions were called with plain values though symbols reached them, and why.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.opaque: dict[str, str] = {}
        self.lifted = Lifted(
            {
                CALL: self.call, ITEM: self.item, IS: self.is_, IN: self.in_, FORCE: concrete, SUBJECT: _subject,
                OUTSIDE: Outside,
            }
        )  # fmt: skip
        self._models: dict[Any, Callable[..., Any]] = {
            int: self._int, float: self._float, bool: bool, isinstance: self._isinstance, type: self._type, range: self._range,
            functools.cache: self._uncached, functools.lru_cache: self._uncached, functools.wraps: lambda *_: _same,
            math.gcd: self._gcd, math.sqrt: self._sqrt, math.isqrt: self._isqrt, math.log2: self._log2,
        }  # fmt: skip

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: PLR0911 - one return per kind of callee
        """`function(*args, **kwargs)`."""
        if isinstance(function, Choice | Truth):
            function = function.concrete()
        if isinstance(function, functools.partial):
            return self.call(function.func, *function.args, *args, **{**function.keywords, **kwargs})
        if _hashable(function):
            if function in self._models and not kwargs:
                return self._models[function](*args)
            if function in _TRANSPARENT:
                return function(*map(self._liftable, args), **{name: self._liftable(v) for name, v in kwargs.items()})
        owner = getattr(function, "__self__", None)
        if isinstance(owner, Symbol) or self.lifted.is_lifted(function):
            return function(*args, **kwargs)
        if isinstance(owner, dict) and getattr(function, "__name__", "") == "get" and isinstance(args[0], Number):
            return self._get(owner, *args)
        if not any(map(self._carries_symbol, (*args, *kwargs.values()))):
            return function(*args, **kwargs)
        if (name := _triton_helper(function)) is not None:
            return self._triton(name, function, *args)
        return self._into(function, args, kwargs)

    def item(self, container: Any, key: Any) -> Any:
        """`container[key]`."""
        if isinstance(container, Symbol):
            container = container.concrete()
        if isinstance(key, Number):
            if isinstance(container, dict) and len(container) <= _MAX_COMPARED:
                return self._get(container, key, _MISSING)
            if isinstance(container, list | tuple | str | range) and not -len(container) <= key < len(container):
                raise IndexError(f"{type(container).__name__} index out of range")
        return container[concrete(key)]

    def is_(self, left: Any, right: Any) -> bool:
        """`left is right`. A number is never None, nor a truth value, nor another number but by accident."""
        if isinstance(left, Number) or isinstance(right, Number):
            other = right if isinstance(left, Number) else left
            if other is None or isinstance(other, bool | str):
                return False
        return concrete(left) is concrete(right)

    def in_(self, item: Any, container: Any) -> Any:
        """`item in container`."""
        if isinstance(container, Symbol):
            container = container.concrete()
        if isinstance(item, Number):
            if isinstance(container, range):
                return self._in_range(item, container)
            if isinstance(container, list | tuple | set | frozenset | dict) and len(container) <= _MAX_COMPARED:
                return any(item == member for member in container)
            item = item.concrete()
        elif isinstance(container, set | frozenset | dict | str | range):
            item = concrete(item)
        return item in container

    # --- entering other code -----------------------------------------------------------------------------------------

    def _into(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call code that may be rewritten; if it cannot be, with concrete values."""
        target, given = function, args
        if isinstance(function, types.MethodType):
            target, given = function.__func__, (function.__self__, *args)
        if _is_cached(target) and all(map(_may_be_hashed, (*given, *kwargs.values()))):
            target = target.__wrapped__
        if _is_cache_decorator(target):
            return self._uncached(*args)
        if isinstance(target, types.FunctionType):
            try:
                lifted = self.lifted.lift(target)
            except UntraceableError as refusal:
                self.opaque[function_name(target)] = refusal.sentence
            else:
                return lifted(*given, **kwargs)
        if any(self._is_lazy(argument) for argument in (*args, *kwargs.values())):
            raise UntraceableError(f"{function!r} is handed a function or a generator that works on symbols")
        return function(*map(concrete, args), **{name: concrete(value) for name, value in kwargs.items()})

    def _liftable(self, argument: Any) -> Any:
        """A function that is handed to `sorted(key=...)` and the like must be able to take symbols."""
        if isinstance(argument, types.FunctionType) and not self.lifted.is_lifted(argument):
            return functools.partial(self.call, argument)
        if isinstance(argument, types.MethodType | types.BuiltinFunctionType | type) and argument not in _TRANSPARENT:
            return functools.partial(self.call, argument)
        return argument

    def _is_lazy(self, value: Any) -> bool:
        if isinstance(value, Symbol):
            return False
        return isinstance(value, types.GeneratorType | map | filter | zip | enumerate) or self.lifted.is_lifted(value)

    def _carries_symbol(self, value: Any) -> bool:
        return _holds_symbol(value) or self._is_lazy(value)

    def _uncached(self, *args: Any) -> Any:
        """A cache does not change what a function without side effects returns, and would ask symbols for a hash."""
        if len(args) == 1 and self.lifted.is_lifted(args[0]):
            return args[0]
        return functools.lru_cache(*args)

    # --- models ------------------------------------------------------------------------------------------------------

    def _int(self, *args: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], Number):
            return math.trunc(args[0])
        return int(*map(concrete, args))

    def _float(self, *args: Any) -> Any:
        return args[0].as_float() if args and isinstance(args[0], Number) else float(*map(concrete, args))

    def _isinstance(self, value: Any, types_: Any) -> bool:
        if isinstance(value, Number):
            return isinstance(0 if value.node.is_int else 0.0, types_)
        return isinstance(concrete(value) if isinstance(value, Symbol) else value, types_)

    def _type(self, *args: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], Number):
            return int if args[0].node.is_int else float
        return type(*(concrete(a) if isinstance(a, Symbol) else a for a in args))

    def _range(self, *args: Any) -> Any:
        if not any(isinstance(argument, Number) for argument in args):
            return range(*map(concrete, args))
        start, stop, step = (0, args[0], 1) if len(args) == 1 else (*args, 1)[:3]
        return _Range(start, stop, concrete(step))

    def _gcd(self, *args: Any) -> Any:
        numbers = [argument for argument in args if isinstance(argument, Number)]
        if len(args) == 2 and len(numbers) == 1:  # noqa: PLR2004 - of two
            constant = concrete(next(argument for argument in args if not isinstance(argument, Number)))
            if type(constant) is int and constant:
                # gcd(x, c) depends on x modulo c only.
                residue = numbers[0] % abs(constant)
                node = _gcd_node(residue.node, constant) if isinstance(residue, Number) else None
                return Number(self._engine, node) if node else math.gcd(concrete(residue), constant)
        return math.gcd(*map(concrete, args))

    def _sqrt(self, value: Any) -> Any:
        if isinstance(value, Number) and value.node.bounds(self._engine.whole)[0] >= 0:
            return value._unary("sqrt", math.sqrt, 1, is_int=False)  # noqa: SLF001 - a model of a number's function
        return math.sqrt(concrete(value))

    def _isqrt(self, value: Any) -> Any:
        if isinstance(value, Number) and value.node.is_int and value.node.bounds(self._engine.whole)[0] >= 0:
            return value._unary("isqrt", math.isqrt, 1, is_int=True)  # noqa: SLF001 - a model of a number's function
        return math.isqrt(concrete(value))

    def _log2(self, value: Any) -> Any:
        """Between two ints below 2**40 a logarithm grows by far more than any library's error, so it never decreases."""
        if isinstance(value, Number) and value.node.is_int:
            low, high = value.node.bounds(self._engine.whole)
            if low > 0 and high < 2**_EXACT_LOG_BITS:
                return value._unary("log2", math.log2, 1, is_int=False)  # noqa: SLF001 - a model of a number's function
        return math.log2(concrete(value))

    def _triton(self, name: str, function: Any, *args: Any) -> Any:
        """`triton.cdiv` and `triton.next_power_of_2`, whose wrappers look at the types of their arguments."""
        if name == "cdiv":
            return (args[0] + args[1] - 1) // args[1]
        (value,) = args
        if isinstance(value, Number) and value.node.is_int and value.node.bounds(self._engine.whole)[0] >= 1:
            return value._unary("next_power_of_2", function, 1, is_int=True)  # noqa: SLF001 - a model of a number's function
        return function(concrete(value))

    def _get(self, mapping: Mapping[Any, Any], key: Number, default: Any = None) -> Any:
        for candidate, value in mapping.items():
            if key == candidate:
                return value
        if default is _MISSING:
            raise KeyError(concrete(key))
        return default

    def _in_range(self, item: Number, container: range) -> bool:
        low, high = (container[0], container[-1]) if len(container) else (1, 0)
        low, high = min(low, high), max(low, high)
        return (
            bool(len(container))
            and bool(low <= item)
            and bool(item <= high)
            and bool((item - low) % container.step == 0)
        )


_MISSING = object()
_CACHED = type(functools.cache(len))


def _gcd_node(residue: nodes.Node, constant: int) -> nodes.Node | None:
    """One node per question, so that facts about it are recognized."""
    key = ("gcd", constant)
    if key not in residue.memo:
        residue.memo[key] = nodes.tabulated(lambda v: math.gcd(v, constant), residue)
    return residue.memo[key]  # type: ignore[no-any-return]  # the memo holds several kinds of things


def concrete(value: Any) -> Any:
    """`value` without symbols, also inside containers. A list or dict stays the same object, since others may hold it."""
    if isinstance(value, Symbol):
        return value.concrete()
    if not _holds_symbol(value):
        return value
    if isinstance(value, dict):
        plain = {concrete(k): concrete(v) for k, v in value.items()}
        value.clear()
        value.update(plain)
        return value
    if isinstance(value, list):
        value[:] = map(concrete, value)
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(concrete, value))
    return type(value)(map(concrete, value))


def _holds_symbol(value: Any) -> bool:
    if isinstance(value, Symbol):
        return True
    if isinstance(value, dict):
        return any(_holds_symbol(k) or _holds_symbol(v) for k, v in value.items())
    return isinstance(value, list | tuple | set | frozenset) and any(map(_holds_symbol, value))


def _subject(value: Any) -> Any:
    """The subject of a `match`: `case True` and `case None` compare by identity, so only numbers may stay symbolic."""
    if isinstance(value, tuple | list) and _holds_symbol(value):
        return type(value)(map(_subject, value))
    return value if isinstance(value, Number) else concrete(value)


class _Range(ByValue):
    """A `range` that asks for its end at each step; whatever else is asked of it makes it an ordinary one."""

    __slots__ = ("_start", "_step", "_stop")

    def __init__(self, start: Any, stop: Any, step: int) -> None:
        if step == 0:
            raise ValueError("range() arg 3 must not be zero")
        self._start, self._stop, self._step = start, stop, step

    def __iter__(self) -> Iterator[Any]:
        current = self._start
        while (current < self._stop) if self._step > 0 else (current > self._stop):
            yield current
            current = current + self._step

    def concrete(self) -> range:
        """The range of the values that its ends have."""
        return range(concrete(self._start), concrete(self._stop), self._step)


def _hashable(value: Any) -> bool:
    return isinstance(value, type | types.BuiltinFunctionType | types.FunctionType)


def _is_cached(function: Any) -> bool:
    return isinstance(function, _CACHED) and isinstance(getattr(function, "__wrapped__", None), types.FunctionType)


def _is_cache_decorator(function: Any) -> bool:
    """`lru_cache(maxsize=...)`, which is still to be handed the function."""
    return (
        getattr(function, "__module__", "") == "functools"
        and getattr(function, "__qualname__", "") == "lru_cache.<locals>.decorating_function"
    )


def _may_be_hashed(argument: Any) -> bool:
    """A cache raises where an argument cannot be hashed, and so must who leaves the cache out."""
    if isinstance(argument, Symbol):
        return True
    try:
        hash(argument)
    except TypeError:
        return False
    return not _holds_symbol(argument)


def _same(value: Any) -> Any:
    return value


def _triton_helper(function: Any) -> str | None:
    """The name of a modelled helper of Triton, told by where it is defined; Triton itself is not imported."""
    name = getattr(function, "__name__", "")
    return (
        name
        if name in ("cdiv", "next_power_of_2") and getattr(function, "__module__", "").startswith("triton")
        else None
    )


__all__ = ["Hooks", "Outside", "concrete"]
