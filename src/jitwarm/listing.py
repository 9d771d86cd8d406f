"""The keys of a kernel: asked of the policies, with what was learned from serving, and what its adapter says of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from jitwarm.contract.backend import TargetScope
from jitwarm.contract.kernel import RegisteredKernel
from jitwarm.contract.keys import decode_key, encode_key
from jitwarm.contract.target import Target
from jitwarm.deadlines import Deadline
from jitwarm.engine.compiler import BuiltinPolicy
from jitwarm.errors import InvalidKernelError, JitwarmError, KeySpaceTooLargeError, Skipped
from jitwarm.registry import Registry
from jitwarm.settings import Asked, matches
from jitwarm.tracing import Explanation, Trace, collected_traces, explain

# Nobody compiles more for one kernel; a list of this length is a slip in its key.
_MAX_KEYS = 20_000


class Listing:
    """Lists keys, and remembers what was traced for them, by kernel id.

    Args:
        asked: Configuration and settings.
        target: What will be built for.
        registry: Answers the hooks.
        policy: Pins the compilers while an adapter looks at keys.
        deadline: Within which a kernel lists its keys.

    Attributes:
        explains: Whether to fill `explanations`.
        explanations: Which inputs reach each key.
        traces: What was traced.
        domains: The inputs that were declared: for each group of rows, name -> values.
    """

    def __init__(
        self, asked: Asked, target: Target, registry: Registry, policy: BuiltinPolicy, deadline: Deadline
    ) -> None:
        self.explains = False
        self.explanations: dict[str, list[Explanation]] = {}
        self.traces: dict[str, list[Trace]] = {}
        self.domains: dict[str, list[Mapping[str, Sequence[Any]]]] = {}
        self._asked = asked
        self._target = target
        self._registry = registry
        self._policy = policy
        self._deadline = deadline

    def keys_in_time(self, kernel: RegisteredKernel) -> tuple[Sequence[Any], Sequence[str]]:
        """A kernel's keys, and notes on them.

        Raises:
            PluginTimeoutError: It took too long.
            Skipped: It is disabled, or not for this rank.
            Exception: Whatever the kernel, or its adapter, raises.
        """
        return self._deadline.call(f"listing the keys of {kernel.id}", self._keys, kernel)

    def _keys(self, kernel: RegisteredKernel) -> tuple[Sequence[Any], Sequence[str]]:
        self._require_wanted(kernel)
        keys, notes = self._declared(kernel)
        learned, more = self._learned(kernel, keys)
        keys += learned
        key_type = self._registry.first_answer("jitwarm_compile_key", kernel=kernel.kernel, kernel_id=kernel.id)
        for key in keys:
            if not isinstance(key, key_type):
                raise InvalidKernelError(f"its warmup keys hold {key!r}, which is no {key_type.__qualname__}")
        return self._expanded(kernel, keys, [*notes, *more])

    def _require_wanted(self, kernel: RegisteredKernel) -> None:
        if matches(kernel.id, self._asked.settings.disable):
            raise Skipped("disabled by JITWARM_DISABLE")
        is_for_rank = getattr(kernel.kernel, "is_for_rank", None)
        if is_for_rank is not None and not is_for_rank(self._asked.config.for_kernels()):
            raise Skipped("not on this rank")

    def _declared(self, kernel: RegisteredKernel) -> tuple[list[Any], list[str]]:
        """What the policies list, with what was traced for it."""
        asked = {"kernel": kernel.kernel, "kernel_id": kernel.id, "config": self._asked.config.for_kernels()}
        with TargetScope(self._target), collected_traces() as traces:
            keys = list(self._registry.first_answer("jitwarm_warmup_keys", **asked))
        if len(keys) > _MAX_KEYS:
            raise KeySpaceTooLargeError(
                f"it lists {len(keys):,} keys, more than {_MAX_KEYS:,}",
                "a key field takes every value of an input: store what the compiler looks at, e.g. IntClass.of(n)",
            )
        self.traces[kernel.id] = traces
        self.domains[kernel.id] = [box for trace in traces for box in trace.domain]
        if self.explains:
            self.explanations[kernel.id] = [explanation for trace in traces for explanation in explain(trace)]
        return keys, [note for trace in traces for note in trace.notes]

    def _learned(self, kernel: RegisteredKernel, declared: Sequence[Any]) -> tuple[list[Any], list[str]]:
        """What `jitwarm.lock.toml` adds to a kernel's own keys, and what to say of it."""
        texts = self._asked.learned.for_kernel(kernel.id, str(self._target))
        known = {encode_key(key) for key in declared} if texts else set()
        keys, notes = [], []
        for text in [text for text in texts if text not in known]:
            try:
                keys.append(decode_key(kernel.kernel, text))
            except JitwarmError as exc:
                notes.append(f"a learned key is left out: {exc.message}")
        return keys, notes + ([f"{len(keys)} of these keys were learned from serving"] if keys else [])

    def _expanded(
        self, kernel: RegisteredKernel, keys: list[Any], notes: list[str]
    ) -> tuple[Sequence[Any], Sequence[str]]:
        """One key per configuration where an autotuner chooses, and what the compiler's own binder says of the keys."""
        expand, check = (getattr(kernel.kernel, name, None) for name in ("expand_keys", "check_keys"))
        if not keys or (expand is None and check is None):
            return keys, notes
        with self._policy.pinned(kernel.kernel, self._target):
            keys = expand(keys) if expand else keys
            return keys, [*notes, *(check(keys) if check else ())]
