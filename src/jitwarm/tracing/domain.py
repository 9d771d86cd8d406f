"""The declared domain of a dispatch: named axes, coupled rows, and the checks that catch a slip before any evaluation."""

import difflib
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jitwarm.contract.spaces import Choices, IntRange, Rows
from jitwarm.errors import DomainError

RESERVED = frozenset({"when", "max_points"})


@dataclass(frozen=True)
class Domain:
    """A union of boxes; each box maps every input to the values it can take."""

    boxes: tuple[Mapping[str, Sequence[Any]], ...]

    @property
    def n_points(self) -> int:
        """How many combinations of inputs there are."""
        return sum(math.prod(len(axis) for axis in box.values()) for box in self.boxes)

    @property
    def widest(self) -> tuple[str, int]:
        """Name and size of the largest axis."""
        name, axis = max((item for box in self.boxes for item in box.items()), key=lambda item: len(item[1]))
        return name, len(axis)

    def points(self) -> Iterator[dict[str, Any]]:
        """Every combination, in the order of declaration, the last input fastest."""
        for box in self.boxes:
            for values in itertools.product(*box.values()):
                yield dict(zip(box, values, strict=True))


def declare(groups: Sequence[Rows | Mapping[str, Any]], inputs: Mapping[str, Any]) -> Domain:
    """The domain of coupled row groups times independent inputs. Bare mappings together are one group.

    Raises:
        DomainError: A name is declared twice, or a positional argument is no row.
    """
    for group in groups:
        if not isinstance(group, Rows | Mapping):
            raise DomainError(
                f"trace_dispatch: {group!r} is no row",
                "positional arguments are mappings, or rows(...); spaces go by name",
            )
    bare = tuple(group for group in groups if isinstance(group, Mapping))
    coupled = [group for group in groups if isinstance(group, Rows)] + ([Rows(bare)] if bare else [])
    boxes = []
    for picked in itertools.product(*coupled):
        box: dict[str, Sequence[Any]] = {}
        for mapping in (*picked, inputs):
            if twice := box.keys() & mapping.keys():
                raise DomainError(f"trace_dispatch: {', '.join(sorted(twice))} declared twice")
            box.update({name: _axis(value) for name, value in mapping.items()})
        boxes.append(box)
    return Domain(tuple(boxes))


def _axis(value: Any) -> Sequence[Any]:
    """The values of one input; anything that is no space is itself the only value."""
    if isinstance(value, range):
        raise DomainError(
            f"{value} is one value here, not a space", f"write IntRange({value.start}, {value.stop}, {value.step})"
        )
    if isinstance(value, list):
        raise DomainError(
            f"{value!r} is one value here, not a space", "write Choices(*values), or a tuple for one value"
        )
    if isinstance(value, IntRange):
        return range(value.start, value.stop, value.step)
    return value.values if isinstance(value, Choices) else (value,)


def check_inputs(dispatch: Callable[..., Any], when: Callable[..., Any] | None, domain: Domain) -> None:
    """Refuse an input that neither `dispatch` nor `when` takes, and a parameter that has neither input nor default.

    Raises:
        DomainError: With the nearest right name.
    """
    parameters = _parameters(dispatch)
    if clash := RESERVED & parameters.keys():
        raise DomainError(
            f"{function_name(dispatch)}: a parameter may not be called {', '.join(clash)}",
            "trace_dispatch uses that name",
        )
    accepted = set(parameters) | (set(_parameters(when)) if when else set())
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for box in domain.boxes:
        for name in box:
            if name not in accepted and not takes_any:
                near = difflib.get_close_matches(name, accepted, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(sorted(accepted))}"
                raise DomainError(f"{function_name(dispatch)} takes no input {name!r}", hint, source_place(dispatch))
        for function in (dispatch, when) if when else (dispatch,):
            _require_inputs(function, box)


def _require_inputs(function: Callable[..., Any], box: Mapping[str, Any]) -> None:
    for name, parameter in _parameters(function).items():
        open_ended = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if name not in box and parameter.default is parameter.empty and not open_ended:
            near = difflib.get_close_matches(name, box, n=1)
            raise DomainError(
                f"{function_name(function)}: parameter {name!r} has neither an input nor a default",
                f"did you mean {near[0]!r}?"
                if near
                else f"declare it: {name}=IntRange(...) or Choices(...) or a value",
                source_place(function),
            )


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(function).parameters)
    for parameter in parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise DomainError(
                f"{function_name(function)}: parameter {parameter.name!r} is positional-only",
                "inputs are passed by name",
            )
    return parameters


def acceptor(function: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Any]:
    """`function` as a function of a point: it is given the inputs that it takes."""
    parameters = _parameters(function)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return lambda point: function(**point)
    return lambda point: function(**{name: point[name] for name in parameters if name in point})


def function_name(function: Callable[..., Any]) -> str:
    """A function for messages; also for a partial or another callable without a name."""
    return str(
        getattr(function, "__qualname__", None) or getattr(getattr(function, "func", None), "__qualname__", function)
    )


def source_place(function: Callable[..., Any]) -> str:
    """`file:line` of a function, or an empty text where it has no Python source."""
    function = getattr(function, "func", function)  # of a partial
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else ""
