"""`check_plugin`: whether a plugin keeps the promises of the contract. Asks processes of their own, and judges what they say."""

import dataclasses
import difflib
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import importlib_metadata
import msgspec

from jitwarm.contract.config import WarmupConfig
from jitwarm.contract.target import Target
from jitwarm.engine.processes import environment_of_child
from jitwarm.environment import CACHE_VARIABLES
from jitwarm.errors import UsageError
from jitwarm.registry import GROUP
from jitwarm.settings import read_config
from jitwarm.testing.checklist import Check, CheckList
from jitwarm.testing.facts import Built, Look, Order, Question
from jitwarm.testing.rules import RULES, Facts, judge

T = TypeVar("T")
# One for each process. Of all pairs of 22 names as keys hold them, 230 come out of a set in both orders under these.
_HASH_SEEDS = ("0", "4", "13", "23")
_NEED_RUNS = frozenset(
    {"every_key_compiles", "second_run_compiles_nothing", "launches_nothing", "compiling_leaves_the_process_alone"}
)
_N_LAST_LINES = 12
_UNBUILT = "nothing was built"


def check_plugin(
    plugin: str | object,
    *,
    target: str = "cuda:90",
    config: WarmupConfig | Mapping[str, Any] | None = None,
    kernels: str = "*",
    needs: Sequence[str] = (),
    skip: Collection[str] = (),
    max_keys: int | None = None,
    n_samples: int = 2000,
    timeout_s: float = 1800.0,
) -> CheckList:
    """Check a plugin against the contract, in processes of their own, without a GPU and with an empty store.

    Args:
        plugin: The name of an installed entry point; or the plugin's module or object, installed or not, as long as other
            processes can import it.
        target: What to build its keys for.
        config: What will run; None takes the defaults. Choose one with few keys: each is compiled.
        kernels: Glob over kernel ids.
        needs: Other installed plugins that it needs, e.g. the one of its backend.
        skip: Names of checks to leave out. Without the four about compiling, nothing is compiled.
        max_keys: Compile no more than these, the first of each kernel first; None compiles all.
        n_samples: Inputs of each traced domain at which `dispatch` is asked.
        timeout_s: Longest that one of the processes may take.

    Returns:
        One row per check. `.require()` raises if one failed.

    Raises:
        UsageError: An unknown target or check, or an object that other processes cannot import.
        SettingsError: A `config` with unknown names.

    Side effects: starts processes; writes temporary files, which are removed. This process and its caches stay as they are.
    """
    _refuse_unknown(skip)
    values = read_config(config) if isinstance(config, Mapping) else config or WarmupConfig()
    with tempfile.TemporaryDirectory(prefix="jitwarm-check-") as scratch:
        name = _entry_point_of(plugin, Path(scratch))
        question = Question(
            name, str(Target.parse(target)), dataclasses.asdict(values), tuple(needs), kernels, n_samples=n_samples
        )
        facts = _Inquiry(question, Path(scratch), timeout_s).facts(max_keys, runs=not set(skip) >= _NEED_RUNS)
    return CheckList(name, str(facts.target), tuple(judge(rule, facts, list(skip)) for rule in RULES))


@dataclass(frozen=True)
class PluginCheck:
    """One check that is made when it is asked for; all checks of one `plugin_checks` are made together, once."""

    name: str
    _made: "_Once" = field(repr=False)

    def __str__(self) -> str:
        return self.name

    @property
    def check(self) -> Check:
        """How it ended."""
        return self._made.checks()[self.name]

    def require(self) -> None:
        """Raise unless the promise is kept.

        Raises:
            PluginCheckError: It is not kept.
            unittest.SkipTest: It was not checked; pytest and unittest show the reason.
        """
        self.check.require()


def plugin_checks(plugin: str | object, **arguments: Any) -> list[PluginCheck]:
    """The checks, to be made one test each. Takes what `check_plugin` takes; nothing is done before the first is required.

    Parametrize a test by them, `@pytest.mark.parametrize("check", plugin_checks("acme"), ids=str)`, and in it call
    `check.require()`.
    """
    made = _Once(plugin, arguments)
    return [PluginCheck(name, made) for name in RULES]


class _Once:
    """`check_plugin`, called when its result is first needed."""

    def __init__(self, plugin: str | object, arguments: Mapping[str, Any]) -> None:
        self._plugin = plugin
        self._arguments = arguments
        self._checks: CheckList | None = None

    def checks(self) -> CheckList:
        """The result."""
        if self._checks is None:
            self._checks = check_plugin(self._plugin, **self._arguments)
        return self._checks


def _refuse_unknown(names: Collection[str]) -> None:
    for name in names:
        if name not in RULES:
            near = difflib.get_close_matches(name, RULES, n=1)
            raise UsageError(
                f"there is no check {name!r}",
                f"did you mean {near[0]!r}?" if near else f"checks are {', '.join(RULES)}",
            )


# --- which plugin --------------------------------------------------------------------------------------------------------


def _entry_point_of(plugin: str | object, scratch: Path) -> str:
    """The name of a plugin's entry point; one that is not installed gets one, in `scratch`.

    Raises:
        UsageError: It cannot be imported in another process.
    """
    if isinstance(plugin, str):
        return plugin
    value = _import_path(plugin)
    for point in importlib_metadata.entry_points(group=GROUP):
        if point.value.replace(" ", "") == value:
            return str(point.name)
    name = value.partition(":")[0].partition(".")[0]
    info = scratch / f"{name}-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {value}\n")
    return name


def _import_path(plugin: object) -> str:
    """`module`, or `module:attribute`, under which another process finds the same."""
    if isinstance(plugin, ModuleType):
        return plugin.__name__
    for module in list(sys.modules.values()):
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is plugin and module.__name__ != "__main__":
                return f"{module.__name__}:{attribute}"
    raise UsageError(
        f"{plugin!r} cannot be imported in another process", "give the name of its entry point, or keep it in a module"
    )


# --- asking --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Inquiry:
    question: Question
    scratch: Path
    timeout_s: float

    def facts(self, max_keys: int | None, *, runs: bool) -> Facts:
        first = self._ask("look", self.question, Look, _HASH_SEEDS[0])
        second: Look | str = "the plugin was not looked at twice"
        built: Built | str = _UNBUILT
        reloaded: Built | str = _UNBUILT
        if isinstance(first, Look) and first.is_installed and not first.refused:
            preload = tuple(sorted({kernel.backend or "" for kernel in first.kernels}))
            again = dataclasses.replace(self.question, n_samples=0, preload=preload)
            second = self._ask("look", again, Look, _HASH_SEEDS[1])
            if runs and any(kernel.keys for kernel in first.kernels):
                built, reloaded = self._runs(max_keys)
        return Facts(self.question.plugin, self.question.target, (first, second), (built, reloaded))

    def _runs(self, max_keys: int | None) -> tuple[Built | str, Built | str]:
        order = Order(**vars(self.question), root=str(self.scratch / "store"), max_keys=max_keys)
        built = self._ask("build", order, Built, _HASH_SEEDS[2])
        if isinstance(built, str):
            return built, _UNBUILT
        again = dataclasses.replace(order, isolate=False, leave_out=tuple(built.quarantined))
        return built, self._ask("build", again, Built, _HASH_SEEDS[3])

    def _ask(self, kind: str, question: Question, of: type[T], hash_seed: str) -> T | str:
        """The answer of a fresh process; a text where it gives none, with the reason."""
        answer = self.scratch / "answer.json"
        answer.unlink(missing_ok=True)
        try:
            done = subprocess.run(  # noqa: S603 - this interpreter and our own module
                [sys.executable, "-P", "-m", "jitwarm.testing.probe", kind, str(answer)],
                input=msgspec.json.encode(question),
                env=self._environment(hash_seed),
                capture_output=True,
                timeout=self.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"the process that was to {kind} took longer than {self.timeout_s:g} s"
        if done.returncode == 0 and answer.is_file():
            return msgspec.json.decode(answer.read_bytes(), type=of)
        last = "\n".join(done.stderr.decode(errors="replace").strip().splitlines()[-_N_LAST_LINES:])
        return f"the process that was to {kind} ended with status {done.returncode}; it printed last:\n{last}"

    def _environment(self, hash_seed: str) -> dict[str, str]:
        """As of a compile process, without the user's settings, and with all caches in the scratch directory."""
        environ = environment_of_child()
        path = os.pathsep.join([str(self.scratch), environ["PYTHONPATH"]])
        caches = {name: str(self.scratch / place) for name, place in CACHE_VARIABLES.items()}
        kept = {name: value for name, value in environ.items() if not name.startswith("JITWARM_")}
        return {**kept, **caches, "PYTHONPATH": path, "PYTHONHASHSEED": hash_seed}
