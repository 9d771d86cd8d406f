"""Whether a key decides everything that Triton compiles a new kernel for.

A key that leaves something out is the worst mistake an author can make: two launches share a key, one of them is warmed, the
other compiles under traffic. Names are checked where the class is defined; what a name cannot tell (whether a parameter is a
pointer, an integer or a float) is checked on the first real entries.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from jitwarm.backends._triton import internals, wrappers
from jitwarm.contract.descriptors import IntClass, TensorSpec
from jitwarm.errors import InvalidKernelError


def check_definition(kernel_class: Any) -> None:
    """Raise `InvalidKernelError` for the first constexpr, pointer or option that nothing decides, naming the field to add."""
    names = {field.name.lower() for field in fields(kernel_class.CompileKey)}
    _check_declarations(kernel_class, names)
    for parameter in internals.jit_function(kernel_class.kernel).params:
        decided = _is_decided(kernel_class, parameter.name, names)
        if parameter.is_constexpr and not decided and not parameter.has_default:
            raise _missing(
                kernel_class,
                parameter.name,
                "a constexpr: Triton compiles one kernel per value",
                f"{parameter.name.lower()}: int",
            )
        if _looks_like_pointer(parameter) and not decided and not _has_dtype(names):
            raise _missing(
                kernel_class, parameter.name, "a pointer: Triton compiles one kernel per dtype", "dtype: str"
            )
    for option in kernel_class.options:
        if not _is_decided(kernel_class, option, names):
            raise _missing(
                kernel_class, option, "a compile option: Triton compiles one kernel per value", f"{option}: int"
            )


def check_entries(kernel_class: Any, entries: Mapping[str, Any]) -> None:
    """Check one result of `launch_args` (with `fixed`) against the jit function's parameters.

    Raises:
        InvalidKernelError: An entry for no parameter, a parameter without entry, or an entry that no key field decides.
    """
    parameters = {p.name: p for p in internals.jit_function(kernel_class.kernel).params}
    by_wrapper = wrappers.decided_by_wrappers(kernel_class.kernel)
    where = f"{kernel_class.__qualname__}.launch_args"
    unknown = [name for name in entries if name not in parameters and name not in kernel_class.options]
    if unknown:
        raise InvalidKernelError(f"{where} gives {', '.join(unknown)}, but the kernel takes {', '.join(parameters)}")
    for name, parameter in parameters.items():
        if name not in entries and name not in by_wrapper and not parameter.has_default:
            raise InvalidKernelError(
                f"{where} has no entry for parameter {name!r}", f"the kernel takes {', '.join(parameters)}"
            )
    names = {field.name.lower() for field in fields(kernel_class.CompileKey)}
    for name, entry in entries.items():
        if name in parameters and not _is_decided(kernel_class, name, names):
            _check_entry(kernel_class, parameters[name], entry, names)


def _check_entry(kernel_class: Any, parameter: Any, entry: Any, names: set[str]) -> None:
    name = parameter.name
    if parameter.is_constexpr:
        raise _missing(kernel_class, name, "a constexpr: Triton compiles one kernel per value", f"{name.lower()}: int")
    if isinstance(entry, TensorSpec) and not _has_dtype(names) and not parameter.annotation_type:
        raise _missing(kernel_class, name, "a pointer: Triton compiles one kernel per dtype", "dtype: str")
    is_integer = isinstance(entry, IntClass) or type(entry) is int
    if is_integer and not parameter.do_not_specialize:
        reason = "an integer: Triton compiles one kernel each for 1, multiples of 16 and other values"
        raise _missing(kernel_class, name, reason, f"{name.lower()}: IntClass")


def _check_declarations(kernel_class: Any, names: set[str]) -> None:
    parameters = {p.name for p in internals.jit_function(kernel_class.kernel).params}
    for name in (*kernel_class.fixed, *kernel_class.derived):
        if name not in parameters and name not in kernel_class.options:
            raise InvalidKernelError(
                f"{kernel_class.__qualname__}: 'fixed' or 'derived' names {name!r}, which the kernel does not take",
                f"it takes {', '.join(sorted(parameters))}",
            )
    for name, sources in kernel_class.derived.items():
        for source in sources:
            if source.lower() not in names:
                raise InvalidKernelError(
                    f"{kernel_class.__qualname__}: {name!r} is derived from {source!r}, which is no field of its CompileKey",
                    f"its fields are {', '.join(sorted(names))}",
                )


def _is_decided(kernel_class: Any, name: str, names: set[str]) -> bool:
    stem = name.lower().removesuffix("_ptr")
    candidates = {name.lower(), stem, f"{stem}_dtype", f"{stem}_class"}
    declared = name in kernel_class.fixed or name in kernel_class.derived
    return declared or bool(candidates & names) or name in wrappers.decided_by_wrappers(kernel_class.kernel)


def _has_dtype(names: set[str]) -> bool:
    return any("dtype" in name for name in names)


def _looks_like_pointer(parameter: Any) -> bool:
    return parameter.name.endswith(("_ptr", "_ptrs")) and not parameter.annotation_type and not parameter.is_constexpr


def _missing(kernel_class: Any, name: str, reason: str, field: str) -> InvalidKernelError:
    function = internals.jit_function(kernel_class.kernel).fn
    return InvalidKernelError(
        f"{kernel_class.__qualname__}.CompileKey misses a field for {name!r}, {reason}",
        f"add `{field}` to CompileKey; or fixed = {{{name!r}: value}} if it never varies; or derived = {{{name!r}: (fields,)}}",
        f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}",
    )
