"""The hooks of jitwarm: this page is their reference.

A kernel author implements `jitwarm_kernels` and writes objects. A site that wants another policy (one key more, one less,
an artifact fetched instead of compiled) implements one of the other hooks for the kernels that it names and answers None
for the rest. Backends come in through `jitwarm_backends`.

How hooks are called, where it differs from a plain pluggy host:

- One implementation at a time, last registered first, the built-in one last. The first answer that is not None wins.
- An implementation that raises is reported with its plugin's name, and the next one is asked.
- Hook wrappers are refused at registration: they would run around every other plugin's answer.
- An implementation may take fewer arguments than the specification.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from jitwarm.contract.kernel import Kernel, Outcome

if TYPE_CHECKING:
    from jitwarm.contract.backend import Backend
    from jitwarm.contract.config import WarmupConfig
    from jitwarm.contract.target import Target
    from jitwarm.contract.tuned import TunedArtifact

PROJECT = "jitwarm"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def jitwarm_kernels(config: "WarmupConfig", target: "Target") -> Iterable[Kernel]:  # type: ignore[empty-body]
    """List this plugin's kernels for a configuration and a target.

    Called once per run, after every plugin was imported and before anything is compiled. Returns quickly, compiles nothing.
    Import your kernels' modules here rather than at the top of the plugin, so that listing plugins stays cheap.

    May raise: then this plugin is refused by name, with the reason, and all others go on. It is refused in the same way if
    it yields an object that is no kernel, or two kernels of one name.
    """


@hookspec(firstresult=True)
def jitwarm_compile_key(kernel: Kernel, kernel_id: str) -> type | None:
    """The class of `kernel`'s compile keys. Built in: `kernel.CompileKey`."""


@hookspec(firstresult=True)
def jitwarm_dispatch(kernel: Kernel, kernel_id: str, arguments: Mapping[str, Any]) -> Any:
    """The key that serves runtime `arguments`. Built in: `kernel.dispatch(**arguments)`. Never called by a launch."""


@hookspec(firstresult=True)
def jitwarm_warmup_keys(kernel: Kernel, kernel_id: str, config: "WarmupConfig") -> Iterable[Any] | None:
    """The keys to warm. Built in: `kernel.get_warmup_keys(config)`.

    An empty list is an answer ("0 keys"), None is not. A policy that wants the default and something more calls
    `jitwarm.default_warmup_keys(kernel, config)`.
    """


@hookspec(firstresult=True)
def jitwarm_compile(kernel: Kernel, kernel_id: str, key: Any, target: "Target") -> Outcome | None:
    """Make `key` warm and say how. Built in: `kernel.compile(key)` under the store's lock, with compiles counted.

    Answers an `Outcome`; None passes the key on to the next implementation. A policy that wants the default calls
    `jitwarm.default_compile(kernel, key, target)`. Must launch nothing.

    May raise `Skipped` or `Unresolved`, which are answers with a reason. Anything else that a policy raises is reported and the
    next implementation is asked; when the built-in one raises, the key is one failed row.
    """


@hookspec
def jitwarm_tuned_artifacts(config: "WarmupConfig", target: "Target") -> Iterable["TunedArtifact"]:  # type: ignore[empty-body]
    """List this plugin's tuned artifacts: results that only a device can find.

    Called once per run, after `jitwarm_kernels`. Returns quickly, tunes nothing. Inside an engine, every rank should list the
    same; one that lists fewer takes no part in those that it lacks.

    May raise: then none of this plugin's artifacts is applied, on any rank, and its kernels go on.
    """


@hookspec
def jitwarm_backends() -> Iterable["Backend"]:  # type: ignore[empty-body]
    """List backends. Called when plugins are loaded, before `jitwarm_kernels` of any plugin. Imports no compiler."""
