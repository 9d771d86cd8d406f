"""Listening where a compiler compiles: a function of it replaced for a while, now or when it is imported."""

import contextlib
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import ModuleType
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


@contextmanager
def when_imported(name: str, then: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """While entered, `then()` is entered as well, as soon as the package `name` is imported: now, or right after its import.

    The package is not imported for this; and a failure of `then` after a later import does not fail that import.
    """
    with ExitStack() as stack:
        if name in sys.modules:
            stack.enter_context(then())
            yield
            return
        finder = _Finder(name, lambda: stack.enter_context(then()))
        sys.meta_path.insert(0, finder)
        stack.callback(finder.leave)
        yield


class _Finder(importlib.abc.MetaPathFinder):
    """Waits for one import, and is gone after it. To be asked where the package is, is no import."""

    def __init__(self, name: str, then: Callable[[], Any]) -> None:
        self._name = name
        self._then = then
        self._asking: set[int] = set()  # threads, in which the other finders answer

    def leave(self) -> None:
        """No longer wait."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The package's own spec, with `then` after its execution."""
        del path, target
        thread = threading.get_ident()
        if fullname != self._name or thread in self._asking:
            return None
        self._asking.add(thread)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking.discard(thread)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._imported)
        return spec

    def _imported(self) -> None:
        if self in sys.meta_path:
            self.leave()
            self._then()


class _Loader(importlib.abc.Loader):
    """A package's own loader, and then something more."""

    def __init__(self, loader: Any, then: Callable[[], Any]) -> None:
        self._loader = loader
        self._then = then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """As the package's own loader does."""
        return self._loader.create_module(spec)  # type: ignore[no-any-return]  # the loader's own contract

    def exec_module(self, module: ModuleType) -> None:
        """Execute the package; what comes after it may fail, the import does not."""
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        with contextlib.suppress(Exception):  # a version that cannot be watched must be usable all the same
            self._then()
