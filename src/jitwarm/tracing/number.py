"""`Number`: an int or a float that depends on large inputs, and so builds nodes instead of values."""

import math
from collections.abc import Callable
from typing import Any

from jitwarm.tracing import nodes
from jitwarm.tracing.engine import Engine, Test
from jitwarm.tracing.lift import author_site
from jitwarm.tracing.nodes import Node
from jitwarm.tracing.periodic import OPERATORS
from jitwarm.tracing.symbols import Symbol, Truth


class Number(Symbol):
    """An int or a float that depends on large inputs."""

    __slots__ = ("node",)
    node: Node

    def __init__(self, engine: Engine, node: Node) -> None:
        self.engine = engine
        self.node = node

    def concrete(self) -> Any:
        """The value that the smallest point of the box has; the box keeps the points that share it."""
        self.engine.budget.sites[author_site()] += 1
        return self.engine.value_of(self.node)

    # --- arithmetic --------------------------------------------------------------------------------------------------

    def _binary(self, name: str, left: Any, right: Any) -> Any:
        """`left <name> right`, one of which is this number."""
        other = right if left is self else left
        if isinstance(other, Number):
            left, right = left._settled(), right._settled()  # noqa: SLF001 - the same class
            if not (isinstance(left, Number) and isinstance(right, Number)):
                return OPERATORS[name](left, right)
        elif isinstance(other, Symbol):
            other = other.concrete()
            left, right = (self, other) if left is self else (other, self)
        if type(other) is bool:
            other = int(other)
            left, right = (left, other) if left is self else (other, right)
        if not isinstance(other, Number) and (type(other) not in (int, float) or not math.isfinite(other)):
            return _by_python(name, left, right)
        return self._symbolic(name, left, right)

    def _symbolic(self, name: str, left: Any, right: Any) -> Any:
        all_int = _is_int(left) and _is_int(right)
        if name in ("<<", ">>", "&", "|", "^") and not all_int:
            return _by_python(name, left, right)
        if name in ("//", "%", "/") and right == 0:
            return _by_python(name, left, right)  # raises, as it would
        if name in ("<<", ">>") and right < 0:
            return _by_python(name, left, right)
        if name == "**" and not self._has_simple_power(left, right):
            return _by_python(name, left, right)
        if not all_int and name in ("//", "%", "**"):
            return _by_python(name, left, right)
        a, b = (operand.node if isinstance(operand, Number) else operand for operand in (left, right))
        memo = self.node.memo
        key = (name, _identity(a), _identity(b))
        if key not in memo:
            memo[key] = (
                nodes.binary(name, a, b, self.engine.whole),
                a,
                b,
            )  # the operands live as long as their ids are keys
        return Number(self.engine, memo[key][0])

    def _settled(self) -> Any:
        """The value, where the box leaves one: with a constant more is known of a result than with a number."""
        if not self.node.is_int:
            return self
        low, high = self.node.bounds(self.engine.spans)
        return low if low == high else self

    def _has_simple_power(self, base: Any, exponent: Any) -> bool:
        """Powers that stay ints and have a direction: of a constant, or with a small constant exponent."""
        whole = self.engine.whole
        if isinstance(base, Number) and isinstance(exponent, Number):
            return False
        if isinstance(base, Number):
            return type(exponent) is int and 0 <= exponent <= 8  # noqa: PLR2004 - larger ones overflow what anyone dispatches on
        return type(base) is int and base >= 1 and bool(exponent.node.bounds(whole)[0] >= 0)

    def __add__(self, other: Any) -> Any:
        return self._binary("+", self, other)

    def __radd__(self, other: Any) -> Any:
        return self._binary("+", other, self)

    def __sub__(self, other: Any) -> Any:
        return self._binary("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._binary("-", other, self)

    def __mul__(self, other: Any) -> Any:
        return self._binary("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._binary("*", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._binary("/", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._binary("/", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return self._binary("//", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._binary("//", other, self)

    def __mod__(self, other: Any) -> Any:
        return self._binary("%", self, other)

    def __rmod__(self, other: Any) -> Any:
        return self._binary("%", other, self)

    def __pow__(self, other: Any) -> Any:
        return self._binary("**", self, other)

    def __rpow__(self, other: Any) -> Any:
        return self._binary("**", other, self)

    def __lshift__(self, other: Any) -> Any:
        return self._binary("<<", self, other)

    def __rlshift__(self, other: Any) -> Any:
        return self._binary("<<", other, self)

    def __rshift__(self, other: Any) -> Any:
        return self._binary(">>", self, other)

    def __rrshift__(self, other: Any) -> Any:
        return self._binary(">>", other, self)

    def __and__(self, other: Any) -> Any:
        return self._binary("&", self, other)

    def __rand__(self, other: Any) -> Any:
        return self._binary("&", other, self)

    def __or__(self, other: Any) -> Any:
        return self._binary("|", self, other)

    def __ror__(self, other: Any) -> Any:
        return self._binary("|", other, self)

    def __xor__(self, other: Any) -> Any:
        return self._binary("^", self, other)

    def __rxor__(self, other: Any) -> Any:
        return self._binary("^", other, self)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __neg__(self) -> Any:
        return self._binary("-", 0, self) if self.node.is_int else self._unary("neg", lambda v: -v, -1, is_int=False)

    def __pos__(self) -> Any:
        return self

    def __invert__(self) -> Any:
        return self._binary("-", -1, self) if self.node.is_int else ~self.concrete()

    def __abs__(self) -> Any:
        if self.node.is_int:
            return -self if self < 0 else self
        return abs(self.concrete())

    def _unary(self, name: str, function: Callable[[Any], Any], direction: int, *, is_int: bool) -> "Number":
        memo = self.node.memo
        if name not in memo:
            memo[name] = nodes.unary(function, self.node, direction=direction, is_int=is_int)
        return Number(self.engine, memo[name])

    # --- conversions -------------------------------------------------------------------------------------------------

    def __ceil__(self) -> Any:
        return self if self.node.is_int else self._unary("ceil", math.ceil, 1, is_int=True)

    def __floor__(self) -> Any:
        return self if self.node.is_int else self._unary("floor", math.floor, 1, is_int=True)

    def __trunc__(self) -> Any:
        return self if self.node.is_int else self._unary("trunc", math.trunc, 1, is_int=True)

    def __round__(self, digits: Any = None) -> Any:
        if digits is None:
            return self if self.node.is_int else self._unary("round", round, 1, is_int=True)
        return round(self.concrete(), digits)

    def as_float(self) -> Any:
        """`float(self)`: the conversion rounds, and never decreases."""
        return self._unary("float", float, 1, is_int=False) if self.node.is_int else self

    def bit_length(self) -> Any:
        """Never decreases for values that are not negative."""
        if not self.node.is_int:
            raise AttributeError("'float' object has no attribute 'bit_length'")
        if self < 0:
            return self.concrete().bit_length()
        if self.node.bounds(self.engine.whole)[0] < 0:
            return self.concrete().bit_length()
        return self._unary("bit_length", int.bit_length, 1, is_int=True)

    # --- comparisons -------------------------------------------------------------------------------------------------

    def _compare(self, relation: str, other: Any, *, negated: bool) -> Any:
        if isinstance(other, Symbol) and not isinstance(other, Number):
            other = other.concrete()
        if isinstance(other, Number):
            if not (_is_exact_in_float(self) and _is_exact_in_float(other)) and self.node.is_int != other.node.is_int:
                return _by_relation(relation, negated, self.concrete(), other.concrete())
            # The sign of a difference is exact: for ints, and for floats thanks to gradual underflow.
            difference = self - other
            if isinstance(difference, Number):
                return Truth(self.engine, difference._test(relation, 0), negated=negated)  # noqa: SLF001 - the same class
            return _by_relation(relation, negated, difference, 0)
        if relation == "eq" and (other is None or type(other) in (str, bytes, tuple, list, dict, set, frozenset)):
            return negated
        if type(other) not in (int, float, bool) or (isinstance(other, float) and not math.isfinite(other)):
            return _by_relation(relation, negated, self.concrete(), other)
        return Truth(self.engine, self._test(relation, other), negated=negated)

    def _test(self, relation: str, constant: Any) -> Test:
        """One test object per question, so that facts are recognized."""
        key = (relation, type(constant), constant)
        memo = self.node.memo
        if key not in memo:
            memo[key] = Test(self.node, relation, constant)
        return memo[key]  # type: ignore[no-any-return]  # the memo holds several kinds of things

    def __lt__(self, other: Any) -> Any:
        return self._compare("lt", other, negated=False)

    def __le__(self, other: Any) -> Any:
        return self._compare("le", other, negated=False)

    def __gt__(self, other: Any) -> Any:
        return self._compare("le", other, negated=True)

    def __ge__(self, other: Any) -> Any:
        return self._compare("lt", other, negated=True)

    def __eq__(self, other: object) -> Any:
        return self._compare("eq", other, negated=False)

    def __ne__(self, other: object) -> Any:
        return self._compare("eq", other, negated=True)

    # --- what cannot stay symbolic -----------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __hash__(self) -> int:
        return hash(self.concrete())

    def __index__(self) -> int:
        value = self.concrete()
        if not isinstance(value, int):
            raise TypeError(f"'{type(value).__name__}' object cannot be interpreted as an integer")
        return value


def _by_relation(relation: str, negated: bool, left: Any, right: Any) -> Any:
    """A comparison as Python does it; what it cannot compare raises the error that the author would see."""
    if relation == "eq":
        return (left != right) if negated else (left == right)
    if relation == "lt":
        return (left >= right) if negated else (left < right)
    return (left > right) if negated else (left <= right)


def _by_python(name: str, left: Any, right: Any) -> Any:
    """An operation on concrete values."""
    left, right = (v.concrete() if isinstance(v, Symbol) else v for v in (left, right))
    return OPERATORS[name](left, right)


def _is_int(operand: Any) -> bool:
    return operand.node.is_int if isinstance(operand, Number) else isinstance(operand, int)


def _identity(operand: Any) -> tuple[Any, ...]:
    return ("node", id(operand)) if isinstance(operand, Node) else (type(operand), operand)


def _is_exact_in_float(number: Number) -> bool:
    """Whether a conversion to float loses nothing."""
    if not number.node.is_int:
        return True
    low, high = number.node.bounds(number.engine.whole)
    return bool(low >= -(2**53) and high <= 2**53)
