"""Specializations of functions that no plugin declares, made again from what Triton itself wrote down of them.

`JITFunction.preload` takes that text, compiles or loads, and files the kernel under the key which the launch asked for.
"""

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from jitwarm.authoring import JitKernel
from jitwarm.backends._triton import internals, watching
from jitwarm.contract.backend import current_target
from jitwarm.contract.config import WarmupConfig
from jitwarm.errors import InvalidKernelError, JitwarmError, text_of


class LearnedFunctions(JitKernel, trace=False):
    """One kernel for all of them; its keys are what `jitwarm.lock.toml` lists."""

    name = "learned"
    backend = "triton"

    @dataclass(frozen=True)
    class CompileKey:
        """A specialization.

        Attributes:
            function: `module:qualname`.
            source: Triton's hash of the function's source: with another source it is another key.
            replay: Triton's text of the specialization.
        """

        function: str
        source: str
        replay: str

        def __str__(self) -> str:
            """The function and what it is compiled for."""
            return f"{self.function}: " + ", ".join(f"{name}={text}" for name, text in _texts(self.replay).items())

    def __init__(self) -> None:
        self._functions: dict[str, Any] = {}

    def dispatch(self, *, function: str, replay: str) -> CompileKey:
        """The key of a specialization, for the source that is there now."""
        return self.CompileKey(function, self._function(function).cache_key, replay)

    def get_warmup_keys(self, config: WarmupConfig) -> list[CompileKey]:
        """Those of `jitwarm.lock.toml` whose function is still there."""
        keys = []
        for function, replay in _listed(config):
            try:
                keys.append(self.dispatch(function=function, replay=replay))
            except InvalidKernelError:
                continue  # `check_keys` says which
        self._missing = [function for function, _ in _listed(config) if function not in self._functions]
        return keys

    def check_keys(self, keys: Iterable[CompileKey]) -> list[str]:
        """A note for each function that is gone."""
        del keys
        return [f"{function} is no longer there: run jitwarm learn" for function in dict.fromkeys(self._missing)]

    def compile(self, key: CompileKey) -> None:
        """Build or load one specialization; on a device also load its binary.

        Raises:
            InvalidKernelError: The function, or its source, is not what the key names.
        """
        function = self._function(key.function)
        if function.cache_key != key.source:
            raise InvalidKernelError(f"{key.function} has another source than the key names", "list the keys again")
        compiled = function.preload(key.replay)
        internals.require_launchable(compiled, current_target())
        if internals.has_real_driver():
            internals.load_module(compiled)

    def is_warm(self, key: CompileKey) -> bool:
        """Whether a launch in this process would neither compile nor load."""
        compiled = internals.find_kernel(self._function(key.function), json.loads(key.replay)["key"])
        return compiled is not None and (internals.is_loaded(compiled) or not internals.has_real_driver())

    def used(self, keys: Sequence[CompileKey]) -> list[bool] | None:
        """Which of them a launch asked for since Triton's memo was emptied; None where that cannot be known."""
        memos = [internals.used_keys(self._function(key.function)) for key in keys]
        pairs = zip(keys, memos, strict=True)
        return None if None in memos else [json.loads(key.replay)["key"] in (memo or ()) for key, memo in pairs]

    def jit_functions(self) -> list[Any]:
        """The jit functions of all keys."""
        return list(self._functions.values())

    def specialization(self, key: CompileKey) -> Mapping[str, str]:
        """As a compile of it shows."""
        return _texts(key.replay)

    def _function(self, path: str) -> Any:
        """The jit function of `module:qualname`, below its wrappers.

        Raises:
            InvalidKernelError: It is not there.
        """
        if path not in self._functions:
            module, _, name = path.partition(":")
            try:
                found = reduce(getattr, name.split("."), importlib.import_module(module))
                self._functions[path] = internals.jit_function(found)
            except JitwarmError:
                raise
            except Exception as exc:
                raise InvalidKernelError(f"{path} cannot be imported: {text_of(exc)}", "run jitwarm learn") from exc
        return self._functions[path]


def _texts(replay: str) -> dict[str, str]:
    said = json.loads(replay)
    constants = dict(zip(map(tuple, said["constant_keys"]), said["constant_vals"], strict=True))
    attributes = {tuple(place) for place, found in zip(said["attrs_keys"], said["attrs_vals"], strict=True) if found}
    texts = {
        name: watching.parameter_text(kind, constants.get((index,)), is_divisible=(index,) in attributes)
        for index, (name, kind) in enumerate(said["signature"].items())
    }
    return {**texts, **watching.options_text(said["options"])}


def _listed(config: WarmupConfig) -> list[tuple[str, str]]:
    return [(function, replay) for function, replay in config.for_plugin("triton").get("learned", ())]
