"""The disk cache that `cute.compile` does not have.

While a key is compiled, the n-th result that uses TVM-FFI is exported as `<n>.o`; `index.json` is written last and makes the
directory valid. In another process the n-th `cute.compile` of the same call returns the loaded object instead, so that the
author's own code fills the author's own table. If a name or the count differs, the directory does not fit: it is a miss.

Loading executes no pickle. Calls that do not ask for TVM-FFI are compiled in each process: their flavour is the author's.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jitwarm.backends._cutedsl import internals
from jitwarm.contract.target import Target

_SYMBOL = "f"


@contextmanager
def exchanging(directory: Path, target: Target) -> Iterator[None]:
    """While entered, take compiled objects from `directory` if it fits, else compile them and keep them there."""
    tape = _Tape(directory, target)
    with internals.replaced_compile(tape.compile):
        yield
    tape.publish()


class _Tape:
    """The sequence of `cute.compile` calls of one key: replayed while it fits, recorded otherwise."""

    def __init__(self, directory: Path, target: Target) -> None:
        self._directory = directory
        self._target = target
        self._kept = _read(directory)
        self._n_calls = 0
        # Each call's object and index entry, in order; None for one that cannot be kept.
        self._objects: list[tuple[bytes, dict[str, Any]] | None] = []
        self._has_compiled = False

    def compile(self, original: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        """One `cute.compile` call."""
        n, name = self._n_calls, internals.function_name(function)
        self._n_calls += 1
        loaded = self._load(n, name)
        if loaded is not None:
            return loaded
        self._has_compiled = True
        with internals.recorded_call_style() as style:
            compiled = original(function, *args, **kwargs)
        self._keep(compiled, name, style)
        return compiled

    def publish(self) -> None:
        """Put the objects of all calls in place of what was there, all files or none; the caller holds the key's lock."""
        kept = [item for item in self._objects if item is not None]
        if not self._has_compiled or len(kept) != self._n_calls:
            return
        self._directory.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=self._directory.parent, prefix=".staging-"))
        try:
            for n, (obj, _) in enumerate(kept):
                (staging / f"{n}.o").write_bytes(obj)
            (staging / "index.json").write_text(json.dumps([entry for _, entry in kept]))
            shutil.rmtree(self._directory, ignore_errors=True)
            staging.rename(self._directory)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def _load(self, n: int, name: str) -> Any | None:
        from cutlass import cute
        from cutlass.base_dsl.common import DSLBaseError

        if self._has_compiled or n >= len(self._kept) or self._kept[n]["name"] != name:
            self._kept = []
            return None
        try:
            module = cute.runtime.load_module(str(self._directory / f"{n}.o"), enable_tvm_ffi=True)
            function = internals.with_call_style(module[_SYMBOL], self._kept[n]["style"])
            self._objects.append(((self._directory / f"{n}.o").read_bytes(), self._kept[n]))
            return function
        except (DSLBaseError, RuntimeError, OSError, AttributeError):
            self._kept = []
            return None

    def _keep(self, compiled: Any, name: str, style: dict[str, Any]) -> None:
        if not internals.uses_tvm_ffi(compiled) or not _is_json(style):
            self._objects.append(None)
            return
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "exported.o"
            compiled.export_to_c(str(file), function_name=_SYMBOL)
            obj = file.read_bytes()
        internals.require_arch(obj, self._target)
        self._objects.append((obj, {"name": name, "style": style}))


def _read(directory: Path) -> list[dict[str, Any]]:
    """The index of a valid directory; empty for none, or for one that is damaged."""
    try:
        index = json.loads((directory / "index.json").read_text(encoding="utf-8"))
        return [{"name": str(entry["name"]), "style": dict(entry["style"])} for entry in index]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _is_json(style: dict[str, Any]) -> bool:
    """Whether defaults survive being written down; if not, the object stays in this process."""
    try:
        return bool(
            json.loads(json.dumps(style)) == {**style, "arg_defaults": list(style.get("arg_defaults", ()))} or not style
        )
    except TypeError:
        return False
