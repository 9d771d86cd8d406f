"""What no tracing can honour, told from the compiled function alone: at a class definition nothing may be parsed.

An error here means that even a call at every point would give no keys, or keys that depend on earlier calls. What only keeps
symbols out (`try`, `with`, ...) is no error: it is `lift`'s to refuse, and then every point is called.
"""

import dis
import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jitwarm.tracing.domain import RESERVED
from jitwarm.tracing.places import excerpt_at, excerpt_of_name

_WRITES_GLOBAL = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_WRITES_CELL = frozenset({"STORE_DEREF", "DELETE_DEREF"})
_WRITES = frozenset(dis.opmap[name] for name in _WRITES_GLOBAL | _WRITES_CELL)


class Fault(NamedTuple):
    """Why a function can have no set of keys; the fields are those of a `JitwarmError`.

    Attributes:
        message: The reason, and below it the author's line with a caret where there is source.
        hint: What to write instead.
        where: `file:line`.
    """

    message: str
    hint: str
    where: str


def definition_fault(function: Any, *, is_method: bool = False) -> Fault | None:
    """The first fault of a dispatch or predicate; None where there is none, or where it is no Python function.

    Args:
        function: A function, a method, a static or class method, or a partial of one.
        is_method: The first parameter is the owner's, and has no input.
    """
    if isinstance(function, functools.partial):  # what it binds is no input: its parameters are the domain's to check
        while isinstance(function, functools.partial | types.MethodType):
            function = function.func if isinstance(function, functools.partial) else function.__func__
        return (_of_kind(function) or _of_writes(function)) if isinstance(function, types.FunctionType) else None
    if isinstance(function, staticmethod | classmethod | types.MethodType):
        function, is_method = function.__func__, not isinstance(function, staticmethod)
    if not isinstance(function, types.FunctionType):
        return None
    return _of_parameters(function, is_method=is_method) or _of_kind(function) or _of_writes(function)


def _of_parameters(function: types.FunctionType, *, is_method: bool) -> Fault | None:
    code, name = function.__code__, function.__qualname__
    where = f"{code.co_filename}:{code.co_firstlineno}"
    parameters = list(inspect.signature(function).parameters.values())
    for parameter in parameters:
        if parameter.name in RESERVED:
            reason = f"{name} may not have a parameter called {parameter.name}"
            hint = "trace_dispatch uses that name; rename the parameter"
            return Fault(reason + excerpt_of_name(code, parameter.name), hint, where)
    for parameter in parameters[is_method:]:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            reason = f"{name}: parameter {parameter.name!r} is positional-only, but inputs are passed by name"
            return Fault(reason + excerpt_of_name(code, parameter.name), "remove the `/`", where)
    return None


def _of_kind(function: types.FunctionType) -> Fault | None:
    code, name = function.__code__, function.__qualname__
    if code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        where = f"{code.co_filename}:{code.co_firstlineno}"
        shown = excerpt_of_name(code, "async")
        return Fault(f"{name} is `async`: it returns a coroutine, no compile key{shown}", "write `def`", where)
    if code.co_flags & inspect.CO_GENERATOR:
        shown, where = _first(code, lambda step: step.opname == "YIELD_VALUE")
        hint = "return one key per call; several launches of one call are several kernels"
        return Fault(f"{name} is a generator (it has a `yield`): it returns no compile key{shown}", hint, where)
    return None


def _of_writes(function: types.FunctionType) -> Fault | None:
    for code, step in _writes(function.__code__, frozenset(function.__code__.co_freevars)):
        shown, where = excerpt_at(code, step.offset)
        kind = "global" if step.opname in _WRITES_GLOBAL else "nonlocal"
        return Fault(
            f"{function.__qualname__} writes the {kind} name {step.argval!r}: its keys would depend on earlier calls{shown}",
            "compute the value where the class or module is defined, and only read it here",
            where,
        )
    return None


def _writes(code: types.CodeType, outer: frozenset[str]) -> Iterator[tuple[types.CodeType, dis.Instruction]]:
    """Stores into names that outlive a call: of the module, or of a function around the outermost one (`outer`)."""
    if not _WRITES.isdisjoint(code.co_code[::2]):  # most functions have none, and this is quick
        for step in dis.get_instructions(code):
            if step.opname in _WRITES_GLOBAL or (step.opname in _WRITES_CELL and step.argval in outer):
                yield code, step
    for nested in code.co_consts:
        if isinstance(nested, types.CodeType):
            yield from _writes(nested, outer & frozenset(nested.co_freevars))


def _first(code: types.CodeType, holds: Callable[[dis.Instruction], bool]) -> tuple[str, str]:
    for step in dis.get_instructions(code):
        if holds(step):
            return excerpt_at(code, step.offset)
    return "", f"{code.co_filename}:{code.co_firstlineno}"
