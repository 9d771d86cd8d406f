"""What Triton does while it is watched: compiles, reloads, tunings, module loads. Nothing here is on a launch's path."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

from jitwarm.backends._triton import internals
from jitwarm.contract.backend import Seen
from jitwarm.patches import Patch

See = Callable[[Seen], None]
_OPTIONS = ("num_warps", "num_ctas", "num_stages", "maxnreg")
_NAME = "triton"


@contextmanager
def watching(see: See) -> Iterator[None]:
    """While entered, tell `see` what Triton does, in whatever thread."""
    from triton.runtime.autotuner import Autotuner

    with ExitStack() as stack:
        stack.enter_context(internals.listening(lambda **event: see(_compiled(**event))))
        stack.enter_context(internals.on_module_load(lambda function: see(Seen(_NAME, "module", function))))
        stack.enter_context(Patch(Autotuner, "_bench", _Tunings(see).wrap))
        yield


def _compiled(src: Any, metadata: Mapping[str, Any], times: Any, *, cache_hit: bool, **_: Any) -> Seen:
    what, seconds = ("reload" if cache_hit else "compile"), times.total / 1e6
    function = getattr(src, "fn", None)
    if not hasattr(function, "device_caches"):  # `triton.compile` of a file of IR
        return Seen(_NAME, what, f"{type(src).__module__}:{getattr(src, 'name', '?')}", {}, seconds)
    specialization = {**_parameters(src), **options_text(metadata)}
    replay = internals.replay_text(function)
    return Seen(_NAME, what, internals.function_path(function), specialization, seconds, function, replay)


def _parameters(src: Any) -> dict[str, str]:
    """Parameter -> what Triton specialized it to."""
    constants, attributes = src.constants, src.attrs
    texts = {}
    for index, (name, kind) in enumerate(src.signature.items()):
        constant = constants.get((index,), constants.get(name))
        texts[name] = parameter_text(kind, constant, is_divisible=bool(attributes.get((index,))))
    return texts


def parameter_text(kind: Any, value: Any, *, is_divisible: bool) -> str:
    """One parameter's specialization, for people and to be compared."""
    if kind == "constexpr":
        return str(getattr(value, "__name__", value))
    word = "aligned" if str(kind).startswith("*") else "multiple of 16"
    return f"{kind}, {word}" if is_divisible else str(kind)


def options_text(options: Mapping[str, Any]) -> dict[str, str]:
    """The compile options that a launch may choose."""
    return {name: str(options[name]) for name in _OPTIONS if options.get(name) is not None}


class _Tunings:
    """Tells each search for the best configuration once, when its last configuration was timed."""

    def __init__(self, see: See) -> None:
        self._see = see
        self._under_way: dict[int, tuple[Any, int, float]] = {}  # by tuner: arguments, configurations timed, seconds

    def wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def bench(tuner: Any, *args: Any, **kwargs: Any) -> Any:
            n_configs = _n_configs(sys._getframe(1))  # noqa: SLF001 - how many there are is known to the caller only
            start = time.monotonic()
            try:
                return original(tuner, *args, **kwargs)
            finally:
                self._add(tuner, n_configs, time.monotonic() - start)

        return bench

    def _add(self, tuner: Any, n_configs: int, seconds: float) -> None:
        arguments, n_timed, total = self._under_way.pop(id(tuner), (None, 0, 0.0))
        if arguments is not tuner.nargs:
            n_timed, total = 0, 0.0
        n_timed, total = n_timed + 1, total + seconds
        if n_timed < n_configs:
            self._under_way[id(tuner)] = (tuner.nargs, n_timed, total)
            return
        function = internals.jit_function(tuner)
        tuned = {name: str(tuner.nargs[name]) for name in tuner.keys if name in (tuner.nargs or {})}
        self._see(Seen(_NAME, "tuning", internals.function_path(function), tuned, total, function))


def _n_configs(frame: FrameType | None) -> int:
    """How many configurations the search goes through; 1 where that is not found."""
    for _ in range(4):
        if frame is None:
            break
        if "pruned_configs" in frame.f_locals:
            return len(frame.f_locals["pruned_configs"])
        frame = frame.f_back
    return 1
