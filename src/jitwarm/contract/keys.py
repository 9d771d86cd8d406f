"""Compile keys as data: canonical text, its way back, and the digest.

`1`, `True` and `1.0` are equal in Python and hash alike, yet compile to three kernels. So keys are written as (type, value)
pairs, and everything that compares, de-duplicates or names keys does so by this text, never by `==` or a set. The text is
the same in every process, on every host and under every PYTHONHASHSEED.
"""

import dataclasses
import enum
import hashlib
import importlib
import json
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

from jitwarm.contract.descriptors import IntClass
from jitwarm.errors import InvalidKernelError, UnencodableKey

_DIGEST_DOMAIN = "jitwarm-key-1"


def encode_key(key: object) -> str:
    """The canonical text of a compile key: JSON, fields sorted, each leaf a `[type, text]` pair.

    Args:
        key: An instance of a frozen dataclass. Fields may hold None, bool, int, float, str, bytes, tuple, frozenset, enum
            members, torch or Triton dtypes, classes and functions that have an import path, and further frozen dataclasses.

    Raises:
        UnencodableKey: A field holds anything else; the message names the field, the value and what to store instead.
        InvalidKernelError: `key` is no instance of a frozen dataclass.
    """
    require_frozen(type(key))
    return json.dumps(_encode_fields(key, type(key).__qualname__), sort_keys=True, separators=(",", ":"))


def decode_key(kernel: Any, text: str) -> Any:
    """The key of `kernel` whose text is `text`; `encode_key(decode_key(kernel, text)) == text`.

    Args:
        kernel: An object with `CompileKey`; an adapter may list more key classes in `extra_key_types`.
        text: What `encode_key` gave, perhaps in another process.

    Raises:
        UnencodableKey: The text is not of this kernel: other fields, or a class that cannot be imported.
    """
    fields = _parsed(text)
    types_ = (kernel.CompileKey, *getattr(kernel, "extra_key_types", ()))
    for key_type in types_:
        if {f.name for f in dataclasses.fields(key_type) if f.init} == set(fields):
            return key_type(**{name: _decode(leaf, types_) for name, leaf in fields.items()})
    expected = ", ".join(f.name for f in dataclasses.fields(kernel.CompileKey))
    raise UnencodableKey(
        f"key text has the fields {', '.join(sorted(fields))}, but {kernel.CompileKey.__qualname__} has {expected}",
        "the text was written by another version of this kernel: list its keys again",
    )


def _parsed(text: str) -> dict[str, list[Any]]:
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise UnencodableKey(f"{text!r} is no key text", "key texts are what encode_key gives")
    return fields


def key_digest(kernel_id: str, text: str) -> str:
    """SHA-256 over the kernel id and the key text, as 64 hexadecimal digits."""
    return hashlib.sha256(f"{_DIGEST_DOMAIN}\0{kernel_id}\0{text}".encode()).hexdigest()


_PLAIN = frozenset({int, str, bool, type(None), IntClass})


def key_identity(key: Any) -> Any:
    """Something hashable that tells keys apart in this process as their text does, and is quicker to make.

    Floats are not plain: `0.0` and `-0.0` are equal.
    """
    try:
        values = tuple(vars(key).values())
    except TypeError:
        return encode_key(key)  # a dataclass with slots
    kinds = tuple(map(type, values))
    return (type(key), values, kinds) if _PLAIN.issuperset(kinds) else encode_key(key)


def format_key(key: object) -> str:
    """A key for people: `block_m=16, dtype=bfloat16`; or what its class says by a `__str__` of its own."""
    if type(key).__str__ is not object.__str__:
        return str(key)
    parts = []
    for field in dataclasses.fields(key):  # type: ignore[arg-type]  # callers pass instances of frozen dataclasses
        value = getattr(key, field.name)
        if dataclasses.is_dataclass(value):
            parts.append(format_key(value))
        elif isinstance(value, tuple) and value and all(isinstance(v, tuple) and len(v) == 2 for v in value):  # noqa: PLR2004 - pairs
            parts.append(", ".join(f"{name}={item}" for name, item in value))
        else:
            parts.append(f"{field.name}={value.name if isinstance(value, enum.Enum) else value}")
    return ", ".join(parts)


def distinct_keys(keys: Iterable[Any]) -> list[Any]:
    """`keys` without repeats, first occurrence first. Repeats are found by text: `Key(1)` and `Key(True)` are two keys."""
    by_text: dict[str, Any] = {}
    for key in keys:
        by_text.setdefault(encode_key(key), key)
    return list(by_text.values())


def require_frozen(key_type: type) -> None:
    """Raise `InvalidKernelError` unless `key_type` is a frozen dataclass."""
    parameters = getattr(key_type, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        name = getattr(key_type, "__qualname__", repr(key_type))
        raise InvalidKernelError(
            f"compile keys are frozen dataclasses; {name} is {'not frozen' if parameters else 'none'}",
            f"put @dataclass(frozen=True) on {name}",
        )


def dtype_name(dtype: object) -> str:
    """The torch name of a dtype, without importing torch: `torch.bfloat16` and `"bfloat16"` both give `"bfloat16"`.

    Use it in `dispatch`, so that a key made from a live tensor equals the key that was made from a configuration.
    """
    return str(dtype).removeprefix("torch.")


# --- writing -----------------------------------------------------------------------------------------------------------


def _encode_fields(key: Any, where: str) -> dict[str, list[Any]]:
    return {f.name: _encode(getattr(key, f.name), f"{where}.{f.name}") for f in dataclasses.fields(key) if f.init}


# Exact types only: a subclass of int or str may carry more than its value.
_SCALARS: dict[type, tuple[str, Callable[[Any], str]]] = {
    types.NoneType: ("none", lambda _: ""),
    bool: ("bool", lambda v: "true" if v else "false"),
    int: ("int", str),
    float: ("float", float.hex),
    str: ("str", str),
    bytes: ("bytes", bytes.hex),
}


def _encode(value: Any, where: str) -> list[Any]:  # noqa: PLR0911 - one return per kind of value
    kind = type(value)
    if kind in _SCALARS:
        tag, text = _SCALARS[kind]
        return [tag, text(value)]
    if kind is tuple:
        return ["tuple", [_encode(item, f"{where}[{i}]") for i, item in enumerate(value)]]
    if kind is frozenset:
        return ["frozenset", sorted((_encode(item, where) for item in value), key=json.dumps)]
    if isinstance(value, enum.Enum):
        is_member = value.name in kind.__members__  # a union of flags is not: it is written by its value
        return ["enum", f"{_import_path(kind, where)}.{value.name if is_member else int(value.value)}"]
    if (dtype := _dtype_leaf(value)) is not None:
        return dtype
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return ["class" if isinstance(value, type) else "function", _import_path(value, where)]
    if dataclasses.is_dataclass(value) and kind.__dataclass_params__.frozen:
        return ["dataclass", f"{kind.__module__}:{kind.__qualname__}", _encode_fields(value, where)]
    raise UnencodableKey(f"compile key field {where} holds {_describe(value)}", _instead(value))


def _dtype_leaf(value: Any) -> list[Any] | None:
    kind = type(value)
    if (kind.__module__, kind.__qualname__) == ("torch", "dtype"):
        return ["dtype", dtype_name(value)]
    if (kind.__module__, kind.__qualname__) == ("triton.language.core", "dtype"):
        return ["triton.dtype", str(value)]
    return None


def _import_path(value: Any, where: str) -> str:
    path = f"{value.__module__}:{value.__qualname__}"
    module = sys.modules.get(value.__module__)
    if module is None or _look_up(module, value.__qualname__) is not value:
        raise UnencodableKey(
            f"compile key field {where} holds {_describe(value)}, which no import path leads to",
            "define it at the top level of its module, so that another process finds the same object",
        )
    return path


def _look_up(module: types.ModuleType, qualname: str) -> Any:
    found: Any = module
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def _describe(value: Any) -> str:
    kind = type(value)
    if hasattr(value, "data_ptr") or (hasattr(value, "shape") and hasattr(value, "dtype")):
        return f"a tensor ({kind.__module__}.{kind.__qualname__})"
    text = repr(value)
    return f"a {kind.__qualname__}: {text if len(text) <= 60 else text[:57] + '...'}"  # noqa: PLR2004 - one line


def _instead(value: Any) -> str:
    if isinstance(value, list):
        return "store a tuple"
    if isinstance(value, set):
        return "store a frozenset"
    if isinstance(value, dict):
        return "store a tuple of pairs, or a nested frozen dataclass"
    if dataclasses.is_dataclass(value):
        return f"put @dataclass(frozen=True) on {type(value).__qualname__}"
    if hasattr(value, "shape"):
        return "a key holds no tensor: store what the compiler looks at, e.g. dtype_name(x.dtype) or IntClass.of(x.stride(0))"
    return "store None, bool, int, float, str, bytes, tuple, frozenset, an enum member, a dtype or a frozen dataclass"


# --- reading -----------------------------------------------------------------------------------------------------------

_READERS: dict[str, Callable[[str], Any]] = {
    "none": lambda _: None,
    "bool": lambda text: text == "true",
    "int": int,
    "float": float.fromhex,
    "str": str,
    "bytes": bytes.fromhex,
    "enum": lambda text: _member(_imported(text.rpartition(".")[0]), text.rpartition(".")[2]),
    "dtype": lambda text: getattr(importlib.import_module("torch"), text),
    "triton.dtype": lambda text: importlib.import_module("triton.language").dtype(text),
}


def _decode(leaf: list[Any], types_: tuple[type, ...]) -> Any:
    tag = leaf[0]
    if tag in ("tuple", "frozenset"):
        items = (_decode(item, types_) for item in leaf[1])
        return tuple(items) if tag == "tuple" else frozenset(items)
    if tag == "dataclass":
        # A nested CompileKey of a local class has no import path, but its kernel knows it.
        known = {f"{t.__module__}:{t.__qualname__}": t for t in types_}
        key_type = known.get(leaf[1]) or _imported(leaf[1])
        return key_type(**{name: _decode(item, types_) for name, item in leaf[2].items()})
    if tag in ("class", "function"):
        return _imported(leaf[1])
    if tag not in _READERS:
        raise UnencodableKey(f"key text holds a value of unknown kind {tag!r}", "it was written by a newer jitwarm")
    return _READERS[tag](leaf[1])


def _member(enumeration: Any, name: str) -> Any:
    return enumeration(int(name)) if name.isdecimal() else enumeration[name]


def _imported(path: str) -> Any:
    module_name, _, qualname = path.partition(":")
    try:
        found = _look_up(importlib.import_module(module_name), qualname)
    except ImportError as exc:
        raise UnencodableKey(f"key text names {path}, which cannot be imported: {exc}") from exc
    if found is None:
        raise UnencodableKey(f"key text names {path}, but {module_name} has no such attribute")
    return found
