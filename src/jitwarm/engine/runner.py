"""The runner: make each key of a plan warm, in order, and record how each ended."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from jitwarm.contract.kernel import Outcome
from jitwarm.deadlines import is_shutdown, raise_if_shutting_down
from jitwarm.engine.plan import Plan, PlannedKernel, PlannedKey, describe_error, outcome_of

Emit = Callable[..., None]


def announce(plan: Plan, emit: Emit) -> None:
    """Emit what is planned, and a row for each kernel whose keys could not be listed."""
    for kernel in plan.kernels:
        emit(
            "kernel_planned",
            kernel=kernel.id,
            backend=kernel.backend,
            distribution=kernel.distribution,
            import_path=kernel.import_path,
            notes=list(kernel.notes),
        )
        for key in kernel.keys:
            emit("key_planned", kernel=kernel.id, digest=key.digest, key=key.text, label=key.label)
        if kernel.problem:
            outcome, error = kernel.problem
            emit("kernel_unlisted", kernel=kernel.id, outcome=outcome.value, error=error)


def run(
    keys: Iterable[tuple[PlannedKernel, PlannedKey]],
    compile_key: Callable[[PlannedKernel, PlannedKey], Outcome],
    emit: Emit,
) -> None:
    """Make every key warm, one after the other.

    Args:
        keys: What to do, in this order.
        compile_key: Makes one key warm and says how. May raise: that is the key's row, and the next key follows.
        emit: Receives `key_start` and `key_end`.
    """
    for kernel, key in keys:
        emit("key_start", kernel=kernel.id, digest=key.digest, label=key.label)
        start = time.monotonic()
        outcome, error = _attempt(compile_key, kernel, key)
        seconds = round(time.monotonic() - start, 4)
        emit("key_end", kernel=kernel.id, digest=key.digest, outcome=outcome.value, error=error, seconds=seconds)


def _attempt(compile_key: Callable[..., Any], kernel: PlannedKernel, key: PlannedKey) -> tuple[Outcome, str | None]:
    try:
        outcome = compile_key(kernel, key)
    except (Exception, SystemExit) as exc:
        if is_shutdown(exc):
            raise
        raise_if_shutting_down()
        # One key's failure is one row.
        return outcome_of(exc), describe_error(exc)
    raise_if_shutting_down()
    if not isinstance(outcome, Outcome):
        return Outcome.FAILED, f"jitwarm_compile answered {outcome!r}, which is no jitwarm.Outcome"
    return outcome, None
