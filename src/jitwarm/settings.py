"""Settings and configuration files: every `JITWARM_*` variable, TOML file and `--set` is read here and nowhere else.

Strongest first: call or command line, `JITWARM_*`, `[settings]` of the TOML file, default. The rest of a TOML file are the
fields of `WarmupConfig`; a plugin's own values are under `[extra.<plugin>]`.
"""

import dataclasses
import difflib
import fnmatch
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from jitwarm.contract.config import AttentionGroup, MoELayer, WarmupConfig
from jitwarm.contract.learned import FILE_NAME, Learned
from jitwarm.environment import OFF, ON, default_root
from jitwarm.errors import SettingsError
from jitwarm.toml_source import Source, assignment

T = TypeVar("T")
_WORDS = {
    "policy": ("warn", "strict"),
    "monitor": ("off", "warn", "error", "record"),
    "execution_warmup": ("off", "auto", "on"),
    "tune": ("auto", "off", "only-apply"),
}
_SECONDS = frozenset({"lock_timeout_s", "time_budget_s", "key_timeout_s", "plan_timeout_s", "tune_timeout_s"})
_SWITCHES = frozenset({"manage_caches", "isolate", "adopt", "verbose", "finish_in_background", "early"})
_COUNTS = frozenset({"workers", "worker_memory_bytes", "worker_max_jobs", "max_keys", "max_late_module_bytes"})


@dataclass(frozen=True)
class Settings:
    """How jitwarm runs; `WarmupConfig` says what for.

    Attributes:
        cache_dir: The store's root; None means the user's cache directory. `JITWARM_CACHE_DIR`.
        plugins: Globs of plugins to load; None loads all, an empty tuple none. Never filters built-in backends.
            `JITWARM_PLUGINS`, comma-separated.
        disable: Globs of plugins and kernel ids to leave out; `*` is everything. `JITWARM_DISABLE`, comma-separated.
        target: What to build for where nothing else says so. `JITWARM_TARGET`.
        manage_caches: Point the compilers' own disk caches under the root. `JITWARM_MANAGE_CACHES=0` turns it off.
        lock_timeout_s: Longest wait for another process that builds the same key. `JITWARM_LOCK_TIMEOUT_S`.
        run_id: Names this run's event log; empty makes one. `JITWARM_RUN_ID`.
        policy: Inside a server: `"warn"` logs what is not warm and starts, `"strict"` ends the start with the list.
            `JITWARM_POLICY`.
        isolate: Compile in child processes, several at once, so that a compiler that hangs or dies costs one key.
            `JITWARM_ISOLATE=0` compiles in this process, one key after the other and without a deadline.
        adopt: Inside vLLM, take over the kernels that vLLM registered for its own warm-up. `JITWARM_ADOPT`.
        workers: Compile processes at once; None means the processors that the cgroup leaves, divided by the ranks on this
            node. `JITWARM_WORKERS`.
        worker_memory_bytes: Private memory that one compile process, and each compiler that it starts, may take; None means what
            the cgroup leaves, divided by the processes at once, at least 4 GiB. `JITWARM_WORKER_MEMORY_BYTES`.
        worker_max_jobs: Keys after which a compile process is replaced, because compilers keep memory that they no longer
            need. `JITWARM_WORKER_MAX_JOBS`.
        time_budget_s: Seconds after which nothing is built any more; None means no limit.
            `JITWARM_TIME_BUDGET_S`.
        max_keys: Number of keys that this start may build, the first of each kernel first; None means no limit. Those that are
            in the store are loaded all the same. `JITWARM_MAX_KEYS`.
        finish_in_background: Inside a server, build what the budget left out when the start is over, at the lowest priority, into
            the store. `JITWARM_FINISH_IN_BACKGROUND`.
        key_timeout_s: Longest that one key may compile in a child process. `JITWARM_KEY_TIMEOUT_S`.
        plan_timeout_s: Longest that a plugin may take to be imported, to list its kernels, or one of them its keys.
            `JITWARM_PLAN_TIMEOUT_S`.
        tune: Tuned artifacts: `"auto"` applies what is kept and tunes the rest, `"only-apply"` never tunes, `"off"` leaves them
            alone. The ranks of an engine do what the most careful of them says. `JITWARM_TUNE`.
        tune_timeout_s: Longest that one rank may tune an artifact, and that ranks wait for one another. `JITWARM_TUNE_TIMEOUT_S`.
        verbose: Inside a server, log each key. `JITWARM_VERBOSE`.
        ready_file: Kept up to date while a server warms up, for probes; None writes none. `JITWARM_READY_FILE`.
        monitor: Inside a server, after its start: `"warn"` tells each compile that still happens, and why; `"error"` also makes
            the launch raise; `"record"` also writes it down for `jitwarm learn`; `"off"` does not look. `JITWARM_MONITOR`.
        early: Inside a server, begin to build while the weights are loaded. `JITWARM_EARLY=0` begins when they are.
        max_late_module_bytes: Inside a server, GPU code that may be loaded after the server has measured its memory; None means
            no limit. A key over it stays on disk. `JITWARM_MAX_LATE_MODULE_BYTES`.
        execution_warmup: Inside vLLM: `"auto"` tells what vLLM's own warm-up compiles that no plugin declares; `"on"` also runs
            a prefill and a decode step through the worker, where vLLM does not; `"off"` does neither.
            `JITWARM_EXECUTION_WARMUP`.
        learned_keys: A `jitwarm.lock.toml`: keys that are warmed beside the declared ones; None means the one in the store's
            root, if it is there. `JITWARM_LEARNED_KEYS`.
    """

    cache_dir: str | None = None
    plugins: tuple[str, ...] | None = None
    disable: tuple[str, ...] = ()
    target: str | None = None
    manage_caches: bool = True
    lock_timeout_s: float = 600.0
    run_id: str = ""
    policy: Literal["warn", "strict"] = "warn"
    isolate: bool = True
    adopt: bool = True
    workers: int | None = None
    worker_memory_bytes: int | None = None
    worker_max_jobs: int = 100
    time_budget_s: float | None = None
    max_keys: int | None = None
    finish_in_background: bool = False
    key_timeout_s: float = 300.0
    plan_timeout_s: float = 30.0
    tune: Literal["auto", "off", "only-apply"] = "auto"
    tune_timeout_s: float = 600.0
    verbose: bool = False
    ready_file: str | None = None
    monitor: Literal["off", "warn", "error", "record"] = "warn"
    early: bool = True
    max_late_module_bytes: int | None = None
    execution_warmup: Literal["off", "auto", "on"] = "auto"
    learned_keys: str | None = None

    @property
    def root(self) -> Path:
        """The store's root directory, absolute."""
        return Path(default_root({**os.environ, "JITWARM_CACHE_DIR": self.cache_dir or ""}))

    def admits_plugin(self, name: str) -> bool:
        """Whether `JITWARM_PLUGINS` and `JITWARM_DISABLE` let this plugin in."""
        return (self.plugins is None or matches(name, self.plugins)) and not matches(name, self.disable)


@dataclass(frozen=True)
class Asked:
    """A configuration file and command line, read and checked."""

    config: WarmupConfig = field(default_factory=WarmupConfig)
    settings: Settings = field(default_factory=Settings)
    learned: Learned = field(default_factory=Learned)


def matches(name: str, globs: Iterable[str]) -> bool:
    """Whether `name` matches one of the globs; case counts."""
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def read(
    file: Path | None = None,
    assignments: Iterable[str] = (),
    *,
    like: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    **overrides: Any,
) -> Asked:
    """Read a TOML file, `name=value` assignments and the environment.

    Args:
        file: A TOML file, or None.
        assignments: `max_num_seqs=64` sets a field, `example.hidden_sizes=[4096]` a plugin's own value. Values are TOML; what
            is no TOML is taken as text.
        like: A configuration to begin with; file and assignments are over it.
        environ: Instead of `os.environ`.
        overrides: Fields of `Settings` that win over everything; None means not given.

    Raises:
        SettingsError: What is wrong, where, and the nearest right name.
    """
    source = Source(file)
    settings_table = source.table_of("settings")
    extra = {**dict((like or {}).get("extra", {})), **source.table_of("extra")}
    table = {**{name: value for name, value in (like or {}).items() if name != "extra"}, **source.table}
    for name, values in extra.items():
        if not isinstance(values, dict):
            hint = f"write [extra.<plugin>] above it, or --set <plugin>.{name}=..."
            raise SettingsError(
                f"{name!r} stands under [extra], but not under a plugin", hint, source.place(name, "extra")
            )
    _refuse_unknown(table, WarmupConfig, source.place)
    _refuse_unknown(settings_table, Settings, lambda name: source.place(name, "settings"), "[settings] ")
    origins: dict[str, str] = {}
    for text in assignments:
        plugin, name, value = assignment(text)
        origins[name] = f"--set {text}"
        if plugin:
            extra.setdefault(plugin, {})[name] = value
        else:
            _refuse_unknown({name: value}, WarmupConfig, lambda _, text=text: f"--set {text}")  # type: ignore[misc]  # default binds
            table[name] = value
    given = {name: value for name, value in overrides.items() if value is not None}
    from_environment = _from_environ(os.environ if environ is None else environ)
    config = _config({**table, "extra": extra}, lambda name: origins.get(name) or source.place(name))
    settings = _check(
        {**settings_table, **from_environment, **given}, lambda name: source.place(name, "settings") or "JITWARM_*"
    )
    return Asked(config, settings, read_learned(settings))


def read_learned(settings: Settings) -> Learned:
    """The `jitwarm.lock.toml` that the settings name, else that of the store's root; nothing where there is none.

    Raises:
        SettingsError: It is named and not there, or cannot be read.
    """
    file = Path(settings.learned_keys) if settings.learned_keys else settings.root / FILE_NAME
    try:
        return Learned.from_toml(tomllib.loads(file.read_text(encoding="utf-8")), str(file))
    except OSError as exc:
        if not settings.learned_keys:
            return Learned()  # also where the root cannot be read: whoever needs the store says so
        raise SettingsError(
            f"cannot read {file}: {exc.strerror}", "JITWARM_LEARNED_KEYS names what `jitwarm learn` wrote"
        ) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{file} is no TOML: {exc}", "write it anew: jitwarm learn") from exc


def read_config(values: Mapping[str, Any]) -> WarmupConfig:
    """A configuration from plain data, checked like a file's.

    Raises:
        SettingsError: An unknown name, with the nearest right one, or a value of the wrong type.
    """
    _refuse_unknown(values, WarmupConfig, lambda _: "")
    return _config(values, lambda _: "")


def read_settings(values: Mapping[str, Any]) -> Settings:
    """Settings from plain data, checked like a file's.

    Raises:
        SettingsError: An unknown name, with the nearest right one, or a value of the wrong type.
    """
    _refuse_unknown(values, Settings, lambda _: "", "[settings] ")
    return _check(values)


def _config(values: Mapping[str, Any], place: Callable[[str], str]) -> WarmupConfig:
    """The configuration; also the records of `attention` and `moe` are checked for misspelt names."""
    for name, schema in (("attention", AttentionGroup), ("moe", MoELayer)):
        for record in values.get(name, ()):
            if isinstance(record, Mapping):
                _refuse_unknown(record, schema, lambda _, name=name: place(name), f"[[{name}]] ")  # type: ignore[misc]  # binds
    return _convert(dict(values), WarmupConfig, place)


def _refuse_unknown(table: Mapping[str, Any], schema: type, place: Callable[[str], str], prefix: str = "") -> None:
    known = [f.name for f in dataclasses.fields(schema)]
    candidates = [*known, "settings"] if schema is WarmupConfig else known
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, candidates, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            if schema is WarmupConfig:
                hint += " A plugin's own values go under [extra.<plugin>] or --set <plugin>.<name>=<value>"
            raise SettingsError(f"unknown name {prefix}{name!r}", hint, place(name))


def read_leniently(given: Mapping[str, Any], *, environ: Mapping[str, str] | None = None) -> tuple[Asked, list[str]]:
    """Settings and plugins' own values for a server that must start: what is wrong is left out, and told.

    Args:
        given: Names of `Settings`, and `extra` with a table per plugin; stronger than the environment.
        environ: Instead of `os.environ`.

    Returns:
        The settings, with an empty configuration but for `extra`, and one sentence for each entry that was left out.
    """
    problems: list[str] = []
    extra = given.get("extra") or {}
    if not isinstance(extra, Mapping) or not all(isinstance(values, Mapping) for values in extra.values()):
        problems.append(f"extra: {extra!r} is no table of tables: left out")
        extra = {}
    names = {field.name for field in dataclasses.fields(Settings)}
    table: dict[str, Any] = {}
    for source in (_from_environ(os.environ if environ is None else environ, problems.append), given):
        for name, value in source.items():
            if name == "extra":
                continue
            try:
                _refuse_unknown({name: value}, Settings, lambda _: "")
                _check({name: value})
            except SettingsError as exc:
                problems.append(f"{exc.message}: left out" + (f" ({exc.hint})" if exc.hint else ""))
            else:
                table[name] = value
    settings = _check({name: value for name, value in table.items() if name in names})
    learned = Learned()
    try:
        learned = read_learned(settings)
    except SettingsError as exc:
        problems.append(f"{exc.message}: left out ({exc.hint})")
    config = WarmupConfig(extra={name: dict(values) for name, values in extra.items()})
    return Asked(config, settings, learned), problems


def _check(table: Mapping[str, Any], place: Callable[[str], str] = lambda _: "") -> Settings:
    """`Settings` from plain data; every time is a length of time."""
    settings = _convert(dict(table), Settings, place)
    for name in _SECONDS:
        seconds = getattr(settings, name)
        if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
            raise SettingsError(f"{name}: {seconds} is no time to wait", "give seconds, 0 or more", place(name))
    for name in sorted(_COUNTS):
        count = getattr(settings, name)
        if count is not None and count < 1:
            raise SettingsError(f"{name}: {count} is too few", "give 1 or more", place(name))
    return settings


def _from_environ(environ: Mapping[str, str], complain: Callable[[str], None] | None = None) -> dict[str, Any]:
    """The settings that variables give. An unset or empty variable gives nothing; for `JITWARM_PLUGINS` empty means none.

    Args:
        environ: The environment.
        complain: Called with what is wrong, and the variable is left out; None raises instead.
    """
    found: dict[str, Any] = {}
    for field_ in dataclasses.fields(Settings):
        name = f"JITWARM_{field_.name.upper()}"
        if not environ.get(name) and not (name in environ and field_.name in ("plugins", "disable")):
            continue
        try:
            found[field_.name] = _value_of(field_.name, environ[name])
        except SettingsError as exc:
            if complain is None:
                raise
            complain(f"{exc.message}: left out ({exc.hint})")
    return found


def _value_of(name: str, text: str) -> Any:
    """One variable's value."""
    word = text.strip().lower()
    if name == "plugins":
        return _globs(text)
    if name == "disable":
        return ("*",) if word in ON else () if word in OFF else _globs(text)
    if name in _SECONDS:
        return _seconds(name, text)
    if name in _SWITCHES:
        if word not in ON | OFF:
            raise SettingsError(f"JITWARM_{name.upper()}={text}", "give 1 or 0")
        return word in ON
    if name in _COUNTS:
        if not word.isdecimal() or int(word) < 1:
            raise SettingsError(f"JITWARM_{name.upper()}={text}", "give a whole number, 1 or more")
        return int(word)
    if name in _WORDS and word not in _WORDS[name]:
        raise SettingsError(f"JITWARM_{name.upper()}={text}", f"give {' or '.join(_WORDS[name])}")
    return word if name in _WORDS else text


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise SettingsError(f"JITWARM_{name.upper()}={text}", "give seconds, 0 or more")
    return seconds


def _globs(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _convert(table: dict[str, Any], schema: type[T], place: Callable[[str], str]) -> T:
    import msgspec  # noqa: PLC0415 - `import jitwarm` loads the standard library and pluggy only

    try:
        return msgspec.convert(table, schema)
    except msgspec.ValidationError as exc:
        # msgspec says "Expected `int`, got `str` - at `$.max_num_seqs`".
        reason, _, path = str(exc).partition(" - at `$")
        name = path.strip(".`")
        message = f"{name or schema.__name__}: {reason[0].lower()}{reason[1:]}"
        raise SettingsError(message, "", place(re.split(r"[\[.]", name)[0])) from exc
