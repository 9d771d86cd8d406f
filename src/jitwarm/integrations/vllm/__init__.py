"""jitwarm inside vLLM, as a general plugin: `register` is the entry point of the group `vllm.general_plugins`.

The way through this package: `register` (in every process, some milliseconds) -> `seam` (the one place where vLLM is changed) ->
`warmup` (in workers, at the seam) -> `adoption` (vLLM's own registry) and `reporting` (vLLM's log and progress bar). Beside it
stands `exposition`: vLLM's page of metrics, in the process that serves it.
"""

import os
import time

from jitwarm.environment import CACHE_VARIABLES, default_root, is_disabled, join_lineage, manages_caches, place_caches

_READY_FILE = "JITWARM_READY_FILE"
# When and where `register` ran; the event log is opened much later, in a worker, and told then.
REGISTERED: dict[str, int] = {}


def register() -> None:
    """Arrange for the warm-up to run in this process, should it become a vLLM worker.

    vLLM calls this bare, in each of its processes: it never raises, may be called again, and imports neither a GPU stack nor
    vLLM's worker modules. It starts no thread and asks no driver, so that a fork after it is safe.

    Side effects: `WorkerWrapperBase.init_device` of vLLM is wrapped, and so is what makes its registry of metrics; this process
    is added to the lineage in `os.environ`; a ready file that an earlier start left is removed; the compilers' cache variables
    are set where they are unset, for otherwise torch's Inductor moves Triton's directory while memory is profiled.
    """
    if is_disabled():
        _tell_probes("switched off")
        return
    try:
        _forget_ready_file()
        from jitwarm.integrations.vllm import exposition, seam  # noqa: PLC0415 - nothing where we are switched off

        join_lineage()
        _place_caches()
        seam.install()
        exposition.install()
    except Exception as exc:  # noqa: BLE001 - a plugin that raises here ends vLLM's start
        not_active(f"{type(exc).__name__}: {exc}")
    else:
        REGISTERED.update(t_ns=time.time_ns(), mono_ns=time.monotonic_ns(), pid=os.getpid())


def not_active(why: str) -> None:
    """No worker of this start will have a warm-up: say so in vLLM's log, and to probes that wait for its end."""
    complain(f"not active: {why}")
    _tell_probes(why)


def _tell_probes(why: str) -> None:
    if not os.environ.get(_READY_FILE):
        return
    try:
        from jitwarm.readiness import write_off  # noqa: PLC0415 - rarely needed

        write_off(os.environ[_READY_FILE], why)
    except Exception as exc:  # noqa: BLE001 - half an installation of ours is no reason not to start
        complain(f"no ready file: {type(exc).__name__}: {exc}")


def _forget_ready_file() -> None:
    """What an earlier start left says "ready" until the first worker of this one warms up, and that takes minutes."""
    if file := os.environ.get(_READY_FILE):
        from jitwarm.readiness import forget  # noqa: PLC0415 - where there is such a file

        forget(file)


def complain(text: str) -> None:
    """One warning in vLLM's log."""
    import logging  # noqa: PLC0415 - rarely needed

    logging.getLogger("vllm.jitwarm").warning("jitwarm: %s", text)


def _place_caches() -> None:
    """Point the compilers' caches under our root before anyone else moves them; a user's value wins."""
    if not manages_caches():
        return
    place_caches(CACHE_VARIABLES, default_root())
