"""A function of a compiler, replaced while it is watched."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

_ABSENT = object()


class Patch(AbstractContextManager[None]):
    """While entered, `owner.name` is what `wrap` makes of it.

    Others may replace it as well, before or after, and leave in any order: what they put there stays, and ours, should it be
    kept inside theirs, does nothing from then on.

    Args:
        owner: A class or module.
        name: Of a function in it.
        wrap: Takes the function that was there, returns the replacement.
    """

    def __init__(self, owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._owner = owner
        self._name = name
        self._wrap = wrap
        self._is_on = False

    def __enter__(self) -> None:
        original = getattr(self._owner, self._name)
        self._own = vars(self._owner).get(self._name, _ABSENT)
        replacement = self._wrap(original)

        @functools.wraps(original)
        def patched(*args: Any, **kwargs: Any) -> Any:
            return (replacement if self._is_on else original)(*args, **kwargs)

        self._patched, self._is_on = patched, True
        setattr(self._owner, self._name, patched)

    def __exit__(self, *exc: object) -> None:
        self._is_on = False
        if vars(self._owner).get(self._name) is not self._patched:
            return  # somebody else came after us
        if self._own is _ABSENT:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, self._own)
