"""Plugins: found by entry point, loaded one at a time, refused by name when they are broken.

A host that calls all plugins at once lets one of them stop the others: one raising implementation ends the call, one failing
import ends the loading, a misspelt hook is silent. So everything here is done plugin by plugin, and what is refused is kept
with its reason.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import importlib_metadata
import pluggy

from jitwarm import hookspecs
from jitwarm.contract.backend import Backend
from jitwarm.contract.config import WarmupConfig
from jitwarm.contract.kernel import RegisteredKernel, kernel_name, require_kernel
from jitwarm.contract.target import Target
from jitwarm.contract.tuned import RegisteredArtifact, require_artifact
from jitwarm.deadlines import Deadline, is_shutdown
from jitwarm.errors import (
    InvalidArtifactError,
    InvalidKernelError,
    JitwarmError,
    NeedsModel,
    PluginError,
    Skipped,
    Unresolved,
    text_of,
)

GROUP = "jitwarm.kernels"
BUILT_IN = "built-in"
_OWN_DISTRIBUTION = "jitwarm"


@dataclass(frozen=True)
class Plugin:
    """A loaded plugin. `name` is its entry point's name, `distribution` the package's name and version."""

    name: str
    distribution: str
    hooks: tuple[str, ...]


@dataclass(frozen=True)
class RefusedPlugin:
    """A plugin that is left out, and why."""

    name: str
    distribution: str
    reason: str


class Registry:
    """The plugins of one run.

    Args:
        admits: Says for a plugin's name whether it may be loaded; built-in backends are not asked about.
        on_refused: Called with each refused plugin.
        on_policy_error: Called with (plugin, hook, error) when a policy raises and the next one is asked.
        deadline: How long a plugin may take to be imported, and to list its kernels.
    """

    def __init__(
        self,
        admits: Callable[[str], bool] = lambda _: True,
        on_refused: Callable[[RefusedPlugin], None] = lambda _: None,
        on_policy_error: Callable[[str, str, BaseException], None] = lambda *_: None,
        deadline: Deadline | None = None,
    ) -> None:
        self.plugins: dict[str, Plugin] = {}
        self.refused: list[RefusedPlugin] = []
        self.left_out: list[str] = []
        self.backends: list[Backend] = []
        self._owners: dict[str, str] = {}
        self._builtin: set[str] = set()
        self._admits = admits
        self._on_refused = on_refused
        self._on_policy_error = on_policy_error
        self._deadline = deadline or Deadline()
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    def load_builtin(self) -> None:
        """Load the entry points of our own distribution: the backends."""
        for point, owner, version in _entry_points():
            if owner == _OWN_DISTRIBUTION:
                self._builtin.add(point.name)
                self._load(point, f"{owner} {version}")

    def load_installed(self) -> None:
        """Load everybody else's entry points, as far as they are admitted."""
        for point, owner, version in _entry_points():
            if owner == _OWN_DISTRIBUTION:
                continue
            if self._admits(point.name):
                self._load(point, f"{owner} {version}")
            else:
                self.left_out.append(point.name)

    def admitted(self) -> list[str]:
        """Everybody else's plugins that `load_installed` would load, by name; nothing is imported."""
        return sorted(
            {
                point.name
                for point, owner, _ in _entry_points()
                if owner != _OWN_DISTRIBUTION and self._admits(point.name)
            }
        )

    def add(self, name: str, plugin: object, distribution: str = "") -> None:
        """Register one plugin object, or refuse it."""
        if name == BUILT_IN:
            self._refuse(name, distribution, f"the name {name!r} is reserved")
            return
        if name in self.plugins:
            self._refuse(name, distribution, f"its name {name!r} is taken by {self.plugins[name].distribution}")
            return
        try:
            hooks = self._register(name, plugin)
            for backend in self._backends_of(name):
                self.backends.append(backend)
                self._owners[backend.name] = name
        except (Exception, SystemExit) as exc:
            if is_shutdown(exc):
                raise
            # Whatever a plugin raises, the others go on.
            self._unregister(name)
            self._refuse(name, distribution, _reason(exc))
        else:
            self.plugins[name] = Plugin(name, distribution, hooks)

    def add_builtin_policy(self, policy: object) -> None:
        """Register the implementations that are asked last."""
        self._manager.register(policy, name=BUILT_IN)

    def kernels(self, config: WarmupConfig, target: Target) -> list[RegisteredKernel]:
        """The kernels of every plugin, in the order of plugin names; a plugin that cannot list them is refused."""
        found: list[RegisteredKernel] = []
        for name in sorted(self.plugins):
            plugin = self.plugins[name]
            try:
                found += self._deadline.call(f"listing the kernels of {name}", self._kernels_of, plugin, config, target)
            except (Exception, SystemExit) as exc:
                if is_shutdown(exc):
                    raise
                if isinstance(exc, NeedsModel) and not config.has_layers:
                    continue  # it is asked again when the model is there
                self._unregister(name)
                del self.plugins[name]
                self._refuse(name, plugin.distribution, _reason(exc))
        return found

    def artifacts(self, config: WarmupConfig, target: Target) -> tuple[list[RegisteredArtifact], dict[str, str]]:
        """The tuned artifacts of every plugin; and by name the plugins whose artifacts are not known, with the reason.

        A plugin that cannot list its artifacts keeps its kernels.
        """
        found: list[RegisteredArtifact] = []
        unknown = {refused.name: f"plugin {refused.name} is refused: {refused.reason}" for refused in self.refused}
        for plugin in sorted(self.plugins.values(), key=lambda plugin: plugin.name):
            what = f"listing the tuned artifacts of {plugin.name}"
            try:
                found += self._deadline.call(what, self._artifacts_of, plugin, config, target)
            except (Exception, SystemExit) as exc:
                if is_shutdown(exc):
                    raise
                unknown[plugin.name] = f"{what} failed: {_reason(exc)}"
                self._on_policy_error(plugin.name, "jitwarm_tuned_artifacts", exc)
        return found, unknown

    def first_answer(self, hook: str, **arguments: Any) -> Any:
        """Ask the implementations of a hook, last registered first and the built-in one last, until one answers.

        Raises:
            Skipped, Unresolved: A policy's answer, with its reason.
            Exception: What the built-in implementation raises. Any other is reported, and the next one is asked.
        """
        implementations = reversed(getattr(self._manager.hook, hook).get_hookimpls())
        # The built-in one last, even where a policy asks to be called late itself.
        for implementation in sorted(implementations, key=lambda i: i.plugin_name == BUILT_IN):
            given = [arguments[name] for name in implementation.argnames]
            try:
                answer = implementation.function(*given)
                if isinstance(answer, Iterator):
                    answer = list(answer)  # a generator raises here, where it is isolated, or not at all
            except (Exception, SystemExit) as exc:
                is_answer = isinstance(exc, Skipped | Unresolved)  # with a reason
                if implementation.plugin_name == BUILT_IN or is_answer or is_shutdown(exc):
                    raise
                self._on_policy_error(implementation.plugin_name, hook, exc)
                continue
            if answer is not None:
                return answer
        return None

    def owner_of(self, backend_name: str) -> str:
        """The name of the plugin that yields a backend; empty for a built-in backend, and where none does."""
        owner = self._owners.get(backend_name, "")
        return "" if owner in self._builtin else owner

    def is_installed(self, name: str) -> bool:
        """Whether a package declares the plugin; one that was added by hand is known in this process only."""
        return any(point.name == name for point, _, _ in _entry_points())

    def has_policy(self, hook: str) -> bool:
        """Whether anybody but the built-in policy answers a hook."""
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        return any(implementation.plugin_name != BUILT_IN for implementation in implementations)

    def backend_of(self, kernel: object) -> str | None:
        """The name of the backend that compiles `kernel`: its adapter's, else what the kernel says of itself."""
        owner = next((backend.name for backend in self.backends if backend.owns(kernel)), None)
        said = getattr(kernel, "backend", None)
        return owner or (said if isinstance(said, str) else None)

    def _load(self, point: importlib_metadata.EntryPoint, distribution: str) -> None:
        try:
            plugin = self._deadline.call(f"importing {point.value}", point.load)
        except (Exception, SystemExit) as exc:
            if is_shutdown(exc):
                raise
            self._refuse(point.name, distribution, f"cannot import {point.value}: {_reason(exc)}")
            return
        self.add(point.name, plugin, distribution)

    def _register(self, name: str, plugin: object) -> tuple[str, ...]:
        if inspect.isclass(plugin):
            raise PluginError(
                f"the entry point yields the class {plugin.__qualname__}", "point it to an instance, or to a module"
            )
        named = [n for n in dir(plugin) if n.startswith("jitwarm_") and inspect.isroutine(getattr(plugin, n))]
        unmarked = [n for n in named if self._manager.parse_hookimpl_opts(plugin, n) is None]
        if unmarked:
            raise PluginError(f"{', '.join(unmarked)} is not marked", "put @jitwarm.hookimpl on it")
        self._manager.register(plugin, name=name)
        callers = self._manager.get_hookcallers(plugin) or []
        if not callers:
            raise PluginError("it implements no hook", "mark its functions with @jitwarm.hookimpl")
        for caller in callers:
            _check_hook(caller, plugin)
        return tuple(sorted(caller.name for caller in callers))

    def _unregister(self, name: str) -> None:
        self.backends[:] = [backend for backend in self.backends if self._owners.get(backend.name) != name]
        plugin = self._manager.get_plugin(name)
        if plugin is not None:
            self._manager.unregister(plugin)

    def _backends_of(self, name: str) -> Iterator[Backend]:
        for backend in self._answers("jitwarm_backends", name):
            if not isinstance(backend, Backend):
                raise PluginError(f"jitwarm_backends yields {backend!r}, which is no jitwarm.Backend")
            if backend.name in {known.name for known in self.backends}:
                raise PluginError(f"backend {backend.name!r} is there already")
            yield backend

    def _kernels_of(self, plugin: Plugin, config: WarmupConfig, target: Target) -> list[RegisteredKernel]:
        by_id: dict[str, RegisteredKernel] = {}
        for kernel in self._answers("jitwarm_kernels", plugin.name, config=config.for_kernels(), target=target):
            require_kernel(kernel)
            kernel_id = f"{plugin.name}:{kernel_name(kernel)}"
            if kernel_id in by_id:
                raise InvalidKernelError(
                    f"it yields two kernels of one id, {kernel_id}", "give one of them another `name`"
                )
            by_id[kernel_id] = RegisteredKernel(
                kernel_id,
                kernel,
                plugin.name,
                plugin.distribution,
                self.backend_of(kernel),
                getattr(kernel, "import_path", ""),
            )
        return list(by_id.values())

    def _artifacts_of(self, plugin: Plugin, config: WarmupConfig, target: Target) -> list[RegisteredArtifact]:
        by_id: dict[str, RegisteredArtifact] = {}
        for artifact in self._answers("jitwarm_tuned_artifacts", plugin.name, config=config, target=target):
            require_artifact(artifact)
            artifact_id = f"{plugin.name}:{artifact.name}"
            if artifact_id in by_id:
                raise InvalidArtifactError(f"it yields two artifacts of one id, {artifact_id}", "rename one of them")
            by_id[artifact_id] = RegisteredArtifact(artifact_id, artifact, plugin.name, plugin.distribution)
        return list(by_id.values())

    def _answers(self, hook: str, name: str, **arguments: Any) -> Iterator[Any]:
        """What one plugin's implementations of a listing hook yield."""
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            if implementation.plugin_name == name:
                answer = implementation.function(*[arguments[n] for n in implementation.argnames])
                if answer is None or isinstance(answer, str) or not isinstance(answer, Iterable):
                    raise PluginError(f"{hook} must return an iterable, not {answer!r}")
                yield from answer

    def _refuse(self, name: str, distribution: str, reason: str) -> None:
        refused = RefusedPlugin(name, distribution, reason)
        self.refused.append(refused)
        self._on_refused(refused)


def _entry_points() -> list[tuple[importlib_metadata.EntryPoint, str, str]]:
    """Each entry point of the group with its distribution's name and version, in a fixed order."""
    found = []
    for point in importlib_metadata.entry_points(group=GROUP):
        owner = point.dist
        found.append((point, owner.name if owner else "unknown", owner.version if owner else ""))
    return sorted(found, key=lambda item: (item[0].name, item[1], item[0].value))


def _check_hook(caller: Any, plugin: object) -> None:
    """Refuse a hook that nobody specified, and wrappers, which would run around other plugins' answers."""
    if not caller.has_spec():
        known = [name for name in dir(hookspecs) if name.startswith("jitwarm_")]
        near = difflib.get_close_matches(caller.name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"hooks are {', '.join(known)}"
        raise PluginError(f"there is no hook {caller.name}", hint)
    for implementation in caller.get_hookimpls():
        if implementation.plugin is plugin and (implementation.hookwrapper or implementation.wrapper):
            raise PluginError(
                f"{caller.name} is a hook wrapper", "wrappers are refused: implement the hook, or answer None"
            )


def _reason(exc: BaseException) -> str:
    """One line that says what and why, with the hint if there is one."""
    if isinstance(exc, JitwarmError):
        return exc.message + "".join(f" ({more})" for more in (exc.where, exc.hint) if more)
    if isinstance(exc, pluggy.PluginValidationError):
        return str(exc).strip().splitlines()[-1]  # the lines before repeat the definition
    return text_of(exc).strip().splitlines()[0]
