"""Why a kernel compiled after the start: what was asked for, the nearest that was expected, what differs, and what to add."""

import dataclasses
import enum
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jitwarm.contract.backend import Seen
from jitwarm.contract.keys import encode_key, format_key, key_digest
from jitwarm.errors import JitwarmError
from jitwarm.monitor.expected import ExpectedKernel, ExpectedKey
from jitwarm.monitor.stack import Asked

# Compilers that have no kernels of ours: why they compiled, and whose warm-up it is.
_ELSEWHERE = {
    "inductor": (
        "torch.compile compiled a graph",
        "let the engine's own profile run meet this shape, or mark it dynamic",
    ),
    "flashinfer": (
        "FlashInfer built a module",
        "install flashinfer-jit-cache, or build the module when the image is made",
    ),
}
Specialization = Callable[[Any], Mapping[str, str]]


@dataclass(frozen=True)
class Explanation:
    """One compile, explained. All texts are plain; empty where something is not known.

    Attributes:
        kernel: Kernel id.
        plugin: Its plugin.
        key: Key text of the key that was asked for.
        digest: Its digest.
        label: The key, or the specialization, for people.
        nearest: Label of the nearest expected key.
        differences: One text per difference to it, or to the declared inputs.
        why: One sentence.
        line: What to add, or to do.
    """

    kernel: str = ""
    plugin: str = ""
    key: str = ""
    digest: str = ""
    label: str = ""
    nearest: str = ""
    differences: tuple[str, ...] = ()
    why: str = ""
    line: str = ""


def explain(
    seen: Seen, kernel: ExpectedKernel | None, asked: Asked | None, specialization: Specialization
) -> Explanation:
    """Explain one compile.

    Args:
        seen: What the backend saw.
        kernel: The declared kernel that it belongs to, if there is one.
        asked: The key that was launched, where the stack shows it.
        specialization: Of one of the kernel's keys, in the words of `seen.specialization`. May raise or be empty.
    """
    if kernel is None:
        return _undeclared(seen)
    found = _of_key(kernel, asked) if asked else _of_specialization(seen, kernel, specialization)
    if kernel.problem:
        found = dataclasses.replace(found, why=f"its keys could not be listed: {_first_line(kernel.problem)}")
    return dataclasses.replace(found, kernel=kernel.record.id, plugin=kernel.record.plugin)


def _undeclared(seen: Seen) -> Explanation:
    if seen.backend in _ELSEWHERE:
        why, line = _ELSEWHERE[seen.backend]
        return Explanation(label=described(seen.specialization), why=why, line=line)
    if seen.function.startswith("?:"):
        return Explanation(
            label=described(seen.specialization),
            why="which kernel it belongs to cannot be seen",
            line="look at the call site",
        )
    declare = f"declare a kernel for {seen.function} in a plugin, or record it and run `jitwarm learn`"
    return Explanation(label=described(seen.specialization), why="kernel not declared by any plugin", line=declare)


# --- by the key that was launched --------------------------------------------------------------------------------------


def _of_key(kernel: ExpectedKernel, asked: Asked) -> Explanation:
    label = format_key(asked.key)
    found = Explanation(label=label)
    try:
        text = encode_key(asked.key)
    except JitwarmError as exc:
        return dataclasses.replace(found, why=f"its key cannot be written down: {exc.message}")
    digest = key_digest(kernel.record.id, text)
    found = dataclasses.replace(found, key=text, digest=digest)
    same = next((key for key in kernel.keys if key.digest == digest), None)
    if same is not None:
        why, line = _planned(same)
        return dataclasses.replace(found, nearest=same.label, why=why, line=line)
    outside = _outside(kernel, asked.inputs)
    nearest = min(kernel.keys, key=lambda key: _distance(asked.key, key.key), default=None)
    differences = outside or (_key_differences(nearest.key, asked.key) if nearest else ())
    return dataclasses.replace(
        found,
        nearest=nearest.label if nearest else "",
        differences=differences,
        why=_why(kernel, bool(outside)),
        line=_widened(kernel, asked.inputs) if outside else f"list {label} in get_warmup_keys of {_place(kernel)}",
    )


def _planned(same: ExpectedKey) -> tuple[str, str]:
    """Why a key that was planned compiled all the same, and what to do."""
    if same.is_warm:
        return (
            "this key was made warm, and yet it compiled: the launch asks for it under another in-process key",
            "let launch_args and options give exactly what the launch passes, in its order",
        )
    why = f"this key was expected, but the start left it cold: {same.outcome or 'not reached'}"
    return why + (f" ({_first_line(same.error)})" if same.error else ""), "see its row in the start's report"


def _why(kernel: ExpectedKernel, is_outside: bool) -> str:
    if is_outside:
        return "an input is outside what was declared"
    return "no such key is declared" if kernel.keys else "this kernel listed no keys for this configuration"


def _outside(kernel: ExpectedKernel, inputs: Mapping[str, Any]) -> tuple[str, ...]:
    """The inputs that no group of rows of the declared domain holds."""
    texts = []
    for name, value in inputs.items():
        declared = [box[name] for box in kernel.domain if name in box]
        if declared and not any(_holds(values, value) for values in declared):
            texts.append(f"{name} {value} is outside {' and '.join(dict.fromkeys(map(_space_text, declared)))}")
    return tuple(texts)


def _holds(values: Sequence[Any], value: Any) -> bool:
    return (
        any(type(v) is type(value) and v == value for v in values) if not isinstance(values, range) else value in values
    )


def _space_text(values: Sequence[Any]) -> str:
    if isinstance(values, range):
        step = f" by {values.step}" if values.step != 1 else ""
        return f"[{values.start}, {values[-1]}]{step}"
    return "{" + ", ".join(str(value) for value in values) + "}"


def _widened(kernel: ExpectedKernel, inputs: Mapping[str, Any]) -> str:
    parts = []
    for name, value in inputs.items():
        declared = [box[name] for box in kernel.domain if name in box]
        if declared and not any(_holds(values, value) for values in declared):
            parts.append(f"{name}={_widened_space(declared[-1], value)}")
    return f"{', '.join(parts)} in get_warmup_keys of {_place(kernel)}"


def _widened_space(values: Sequence[Any], value: Any) -> str:
    if isinstance(values, range) and isinstance(value, int):
        fits = values.step != 1 and (value - values.start) % values.step == 0
        return (
            f"IntRange({min(values.start, value)}, {max(values.stop, value + 1)}{f', {values.step}' if fits else ''})"
        )
    return f"Choices({', '.join(repr(v) for v in [*values, value])})"


def _distance(asked: Any, expected: Any) -> tuple[int, float]:
    """How many fields differ, then by how much the numbers among them do."""
    differing = [(a, b) for _, a, b in _fields(expected, asked)]
    gaps = [abs(a - b) for a, b in differing if type(a) is int and type(b) is int]
    return len(differing), float(sum(gaps))


def _key_differences(expected: Any, asked: Any) -> tuple[str, ...]:
    return tuple(f"{name}: {_value_text(a)} -> {_value_text(b)}" for name, a, b in _fields(expected, asked))


def _fields(expected: Any, asked: Any) -> list[tuple[str, Any, Any]]:
    """The fields in which two keys differ, with both values; `1` and `True` do differ."""
    if type(expected) is not type(asked):
        return [("key", expected, asked)]
    pairs = [(f.name, getattr(expected, f.name), getattr(asked, f.name)) for f in dataclasses.fields(asked)]
    return [(name, a, b) for name, a, b in pairs if type(a) is not type(b) or a != b]


def _value_text(value: Any) -> str:
    return value.name.lower().replace("_", " ") if isinstance(value, enum.Enum) else str(value)


# --- by what the compiler says -----------------------------------------------------------------------------------------


def _of_specialization(seen: Seen, kernel: ExpectedKernel, specialization: Specialization) -> Explanation:
    label = described(seen.specialization)
    candidates = [(key, texts) for key in kernel.keys if (texts := _or_empty(specialization, key.key))]
    if not candidates:
        line = f"list its key in get_warmup_keys of {_place(kernel)}, or record it and run `jitwarm learn`"
        return Explanation(label=label, why=_why(kernel, is_outside=False), line=line)
    key, expected = min(candidates, key=lambda pair: len(_differing(pair[1], seen.specialization)))
    differing = _differing(expected, seen.specialization)
    if not differing:
        text = encode_key(key.key)
        why, line = _planned(key)
        return Explanation(key=text, digest=key.digest, label=key.label, nearest=key.label, why=why, line=line)
    return Explanation(
        label=label,
        nearest=key.label,
        differences=tuple(f"{name}: {expected.get(name, '?')} -> {seen.specialization[name]}" for name in differing),
        why="no declared key is compiled for this",
        line=f"give {_place(kernel)} a key for which {', '.join(differing)} differ{'s' if len(differing) == 1 else ''} so",
    )


def _differing(expected: Mapping[str, str], seen: Mapping[str, str]) -> list[str]:
    return [name for name, text in seen.items() if name in expected and expected[name] != text]


def _or_empty(specialization: Specialization, key: Any) -> Mapping[str, str]:
    try:
        return specialization(key)
    except Exception:  # noqa: BLE001 - an explanation that lacks something is better than none
        return {}


def described(specialization: Mapping[str, str]) -> str:
    """A specialization for people, and to be compared."""
    return ", ".join(f"{name}={text}" for name, text in specialization.items())


def _place(kernel: ExpectedKernel) -> str:
    """Where a kernel is written down: `Class (module:line)`."""
    cls = type(kernel.record.kernel)
    try:
        line = inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return f"{cls.__qualname__} ({cls.__module__})"
    return f"{cls.__qualname__} ({cls.__module__}:{line})"


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
