"""vLLM's `/metrics`: the process that serves it shows what its own workers wrote into their event files.

Which workers are its own is told by the lineage in the environment: those below this process. Where vLLM runs several API
processes, each is a sister of the engine, and those below their mother are meant; any of them may be asked, for all read the same
files and give the same sums. What is served is `prometheus_client.REGISTRY`; with several API processes it is a new registry for
each request, which has a `MultiProcessCollector`. The collector is put into both. What costs is imported at the first request.
"""

import functools
import os
import sys
import types
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jitwarm.environment import LINEAGE
from jitwarm.integrations.vllm import complain

if TYPE_CHECKING:
    from pathlib import Path

    from jitwarm.metrics.collecting import EventCollector, Processes

# The families of `jitwarm.metrics`, which is imported at the first request only: vLLM's processes pay for every import.
NAMES = {
    "jitwarm_unexpected_compiles": "counter",
    "jitwarm_unexpected_compile_seconds": "counter",
    "jitwarm_unexpected_tunings": "counter",
    "jitwarm_unexpected_tuning_seconds": "counter",
    "jitwarm_reloads": "counter",
    "jitwarm_keys": "gauge",
    "jitwarm_cold_keys": "gauge",
    "jitwarm_warmup_seconds": "gauge",
    "jitwarm_workers": "gauge",
    "jitwarm_watched_workers": "gauge",
    "jitwarm": "info",
}
_CLIENT = "prometheus_client"
_CONFIGURED = ("vllm.engine.arg_utils", "EngineArgs", "create_engine_config")
_MARK = "_jitwarm_wrapped"
# vLLM sets it where there are several API processes.
_SEVERAL = "PROMETHEUS_MULTIPROC_DIR"


class Exposition:
    """Stands in a registry for the collector, which is made when it is first asked for metrics.

    Attributes:
        vllm_config: Of the engine that this process serves; None where it is not known.
    """

    def __init__(self) -> None:
        self.vllm_config: Any = None
        self._made: EventCollector | None = None
        self._is_broken = False

    def describe(self) -> Iterable[Any]:
        """Name and type of each family, which is what a registry wants to know."""
        return [types.SimpleNamespace(name=name, type=kind) for name, kind in NAMES.items()]

    def collect(self) -> Iterable[Any]:
        """The families; none, and one warning, where something of ours fails: the page has others."""
        try:
            self._made = self._made or self._make()
            return list(self._made.collect())
        except Exception as exc:  # noqa: BLE001 - as said
            if not self._is_broken:
                complain(f"no metrics: {type(exc).__name__}: {exc}")
            self._is_broken = True
            return []

    def _make(self) -> "EventCollector":
        from jitwarm.metrics.collecting import EventCollector  # noqa: PLC0415 - at the first request
        from jitwarm.metrics.following import Follower  # noqa: PLC0415 - as above

        events = self._root() / "events"
        lineage = os.environ[LINEAGE]
        start, *_ = lineage.split("/")
        return EventCollector(
            Follower(events, kin=start, since=int(start.partition("-")[0], 16)),
            lambda processes: below(lineage, processes, with_sisters=_SEVERAL in os.environ),
            lambda: complain(f"no metrics: no worker of this server has written events in {events}"),
        )

    def _root(self) -> "Path":
        """Of the store, as the workers find it."""
        from jitwarm.settings import read_leniently  # noqa: PLC0415 - as above

        given = getattr(self.vllm_config, "additional_config", None)
        own = given.get("jitwarm") if isinstance(given, dict) else None
        return read_leniently(own if isinstance(own, dict) else {})[0].settings.root


def below(lineage: str, processes: "Processes", *, with_sisters: bool) -> "Processes":
    """Those that the process of this lineage started, or is; where there are none, with sisters: those that its mother did."""
    found = _started_by(lineage, processes)
    if not found and with_sisters:
        found = _started_by(lineage.rpartition("/")[0], processes)
    return found


def _started_by(lineage: str, processes: "Processes") -> "Processes":
    return [process for process in processes if lineage and f"{process[0]}/".startswith(f"{lineage}/")]


_EXPOSITION = Exposition()


def install() -> None:
    """Put the collector into what this process may serve. Again is harmless; never raises.

    Only where `prometheus_client` is loaded already: a process that serves metrics has it when plugins are loaded.
    """
    try:
        _install()
    except Exception as exc:  # noqa: BLE001 - metrics are not worth a warm-up
        complain(f"no metrics: {type(exc).__name__}: {exc}")


def _install() -> None:
    client, several = sys.modules.get(_CLIENT), sys.modules.get(f"{_CLIENT}.multiprocess")
    if client is None:
        return
    _add(client.REGISTRY)
    _follow(getattr(several, "MultiProcessCollector", None), "__init__", _made_for)
    module, class_name, method = _CONFIGURED
    _follow(getattr(sys.modules.get(module), class_name, None), method, _remember)


def _add(registry: Any) -> None:
    """Register the collector, unless these series are in the registry already."""
    with suppress(ValueError):
        registry.register(_EXPOSITION)


def _made_for(_: None, __: Any, registry: Any = None, *___: Any, **____: Any) -> None:
    """A `MultiProcessCollector` was made for a registry."""
    if registry is not None:
        _add(registry)


def _remember(vllm_config: Any, *_: Any, **__: Any) -> None:
    _EXPOSITION.vllm_config = vllm_config


def _follow(owner: Any, name: str, then: Callable[..., None]) -> None:
    """Call `then`, with the result and the arguments, after each `owner.name(...)`; nothing where there is no such thing."""
    original = getattr(owner, name, None)
    if owner is None or original is None or getattr(original, _MARK, False):
        return

    @functools.wraps(original)
    def followed(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        try:
            then(result, *args, **kwargs)
        except Exception as exc:  # noqa: BLE001 - vLLM goes on
            complain(f"no metrics: {type(exc).__name__}: {exc}")
        return result

    setattr(followed, _MARK, True)
    setattr(owner, name, followed)
