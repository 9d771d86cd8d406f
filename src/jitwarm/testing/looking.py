"""Look at one plugin: load it, list its kernels and their keys, and ask what `dispatch` says without tracing."""

import importlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import importlib_metadata
import pluggy

from jitwarm import hookspecs
from jitwarm.contract.backend import TargetScope
from jitwarm.contract.config import WarmupConfig
from jitwarm.contract.kernel import Kernel, Outcome, RegisteredKernel, kernel_name
from jitwarm.contract.keys import decode_key, encode_key, format_key
from jitwarm.contract.target import Target
from jitwarm.deadlines import Deadline
from jitwarm.engine.plan import describe_error, outcome_of
from jitwarm.errors import JitwarmError, text_of
from jitwarm.registry import GROUP, Registry
from jitwarm.settings import matches, read_config
from jitwarm.testing.facts import KernelFacts, Look, Question
from jitwarm.testing.launches import watched_launches
from jitwarm.testing.samples import disagreements
from jitwarm.tracing import Trace, collected_traces
from jitwarm.tracing.domain import acceptor

GPU_STACKS = ("cupy", "cutlass", "jax", "tilelang", "torch", "triton", "tvm", "vllm")
_N_LOOKS = 40
_PAUSE_S = 0.05


def look(question: Question) -> Look:
    """Load the plugin, list its kernels, list their keys twice, and ask their `dispatch` again."""
    seen = Look()
    with watched_launches(seen.touches.append):
        registry = Registry(
            lambda name: name in (question.plugin, *question.needs), deadline=Deadline(question.timeout_s)
        )
        registry.load_builtin()
        for backend in registry.backends:
            if backend.name in question.preload:
                _import_each(backend.modules)
        with _threads_noted(seen):
            _discover(registry, seen)
            seen.is_installed = registry.is_installed(question.plugin)
            target = Target.parse(question.target)
            kernels = registry.kernels(read_config(question.config), target)
        seen.refused = next((known.reason for known in registry.refused if known.name == question.plugin), "")
        seen.duplicates = _duplicates(question)
        chosen = [k for k in kernels if k.plugin == question.plugin and matches(k.id, [question.kernels])]
        with TargetScope(target):
            seen.kernels = [_facts(kernel, question) for kernel in chosen]
    return seen


def _discover(registry: Registry, seen: Look) -> None:
    before = set(sys.modules)
    registry.load_installed()
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    seen.gpu_stacks = sorted(new & set(GPU_STACKS))


@contextmanager
def _threads_noted(seen: Look) -> Iterator[None]:
    """While entered, note which threads are started and stay."""
    before, n_before = set(threading.enumerate()), _n_threads()
    yield
    new = set(threading.enumerate()) - before
    seen.threads = sorted(thread.name for thread in new)
    for _ in range(_N_LOOKS):  # a thread that was joined may be there for a moment still
        seen.n_native_threads = max(0, _n_threads() - n_before - len(new))
        if not seen.n_native_threads:
            break
        time.sleep(_PAUSE_S)


def _n_threads() -> int:
    """Threads of this process, also those that Python does not know."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names are enough


def _duplicates(question: Question) -> list[str]:
    """Names of kernels that are there twice; a plugin that cannot be asked is refused, with its reason, elsewhere."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        (point,) = importlib_metadata.entry_points(group=GROUP, name=question.plugin)
        manager.register(point.load())
        asked = {"config": read_config(question.config), "target": Target.parse(question.target)}
        names = Counter(kernel_name(kernel) for listed in manager.hook.jitwarm_kernels(**asked) for kernel in listed)
    except (Exception, SystemExit):  # noqa: BLE001 - as said above
        return []
    return sorted(name for name, n in names.items() if n > 1)


def _facts(record: RegisteredKernel, question: Question) -> KernelFacts:
    facts = KernelFacts(record.id, record.backend)
    config = read_config(question.config)
    is_for_rank = getattr(record.kernel, "is_for_rank", None)
    if is_for_rank is not None and not is_for_rank(config):
        facts.problem = (Outcome.SKIPPED.value, "not on this rank")
        return facts
    deadline = Deadline(question.timeout_s)
    try:
        with collected_traces() as traces:
            keys = deadline.call(f"listing the keys of {record.id}", _keys, record.kernel, config)
        again = deadline.call(f"listing the keys of {record.id} again", _keys, record.kernel, config)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - it is a fact of its own
        facts.problem = (outcome_of(exc).value, describe_error(exc))
        return facts
    facts.keys, facts.again = _texts(facts, keys), _texts(None, again)
    facts.undecodable = list(_undecodable(record.kernel, facts.keys))
    if question.n_samples:
        _compare(facts, record.kernel, traces, question.n_samples)
    return facts


def _keys(kernel: Kernel, config: WarmupConfig) -> list[Any]:
    return list(kernel.get_warmup_keys(config))


def _texts(facts: KernelFacts | None, keys: Iterable[Any]) -> list[str]:
    """The keys' texts, without repeats; what has none, or no hash, is noted."""
    texts: dict[str, None] = {}
    for key in keys:
        try:
            hash(key)
            texts[encode_key(key)] = None
        except Exception as exc:  # noqa: BLE001 - whatever a field's own methods raise
            if facts is not None:
                facts.unencodable.append(exc.message if isinstance(exc, JitwarmError) else f"{key!r}: {text_of(exc)}")
    return list(texts)


def _undecodable(kernel: Kernel, texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        try:
            back = encode_key(decode_key(kernel, text))
        except Exception as exc:  # noqa: BLE001 - whatever the author's class raises
            yield f"{text}: {exc.message if isinstance(exc, JitwarmError) else text_of(exc)}"
        else:
            if back != text:
                yield f"{text} comes back as {back}"


def _compare(facts: KernelFacts, kernel: Kernel, traces: Sequence[Trace], n_samples: int) -> None:
    """What tracing found, against what the author's functions answer."""
    traced: set[str] = set()
    for trace in traces:
        facts.disagreements += disagreements(trace, n_samples)
        if all(isinstance(key, kernel.CompileKey) for key in trace.keys):  # else a helper was traced
            traced.update(map(encode_key, trace.keys))
            facts.not_taken += _not_taken(kernel, trace)
    facts.n_traced = sum(text in traced for text in facts.keys)
    facts.n_by_hand = len(facts.keys) - facts.n_traced


def _not_taken(kernel: Kernel, trace: Trace) -> Iterator[str]:
    """Where `dispatch` itself maps a key's witness to another key, or does not take it."""
    for index, key in enumerate(trace.keys):
        witness = trace.witness(index)
        shown = ", ".join(f"{name}={value!r}" for name, value in witness.items())
        try:
            answer = acceptor(kernel.dispatch)(witness)
            if encode_key(answer) != encode_key(key):
                yield f"dispatch({shown}) gives [{format_key(answer)}], but [{format_key(key)}] is listed for it"
        except Exception as exc:  # noqa: BLE001 - whatever the author's function raises
            yield f"dispatch({shown}) fails: {text_of(exc)}"


def _import_each(modules: Iterable[str]) -> None:
    for module in modules:
        with suppress(Exception):  # the compile that needs it says what is wrong
            importlib.import_module(module)
