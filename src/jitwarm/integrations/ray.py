"""A Ray cluster as an executor of `concurrent.futures`: `pip install 'jitwarm[ray]'`.

Each call is one Ray task of one CPU and no GPU. Tasks are carried by name, so every node needs jitwarm installed.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from jitwarm.errors import HostsUnavailableError, text_of

P = ParamSpec("P")
T = TypeVar("T")


class RayExecutor(Executor):
    """Submits calls as tasks to the Ray cluster that this process is connected to.

    Attributes:
        n_slots: CPUs of the cluster, counted when it was made.
    """

    def __init__(self) -> None:
        import ray  # noqa: PLC0415 - an extra

        self._ray = ray
        self.n_slots = int(ray.cluster_resources().get("CPU", 0))
        self._tasks: dict[Any, Any] = {}  # each is carried to the cluster once
        self._is_shut_down = False
        self._owns_connection = False

    @classmethod
    def connect(cls, address: str = "auto") -> "RayExecutor":
        """Connect this process to a cluster; `shutdown` disconnects.

        Args:
            address: `auto` for the cluster of `RAY_ADDRESS`, or else that of this machine; `ray://HOST:10001` for one elsewhere.

        Raises:
            HostsUnavailableError: Ray is not installed, or no cluster answers.
        """
        try:
            import ray  # noqa: PLC0415 - an extra
        except ImportError as exc:
            raise HostsUnavailableError("Ray is not installed", "pip install 'jitwarm[ray]'") from exc
        if ray.is_initialized():
            return cls()
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")  # what nodes print is not our report
        except (Exception, SystemExit) as exc:
            raise HostsUnavailableError(
                f"no Ray cluster answers at {address}: {text_of(exc).splitlines()[0]}",
                "start one with `ray start --head`, or name it: --hosts ray://HOST:10001",
            ) from exc
        executor = cls()
        executor._owns_connection = True
        return executor

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a module-level function on some node.

        A task that is lost with its node or process is run again, without limit: neither is the call's own fault, and
        whoever waits has a deadline. An exception that the function raises is not tried again.

        Raises:
            RuntimeError: The executor was shut down.
        """
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if fn not in self._tasks:
            self._tasks[fn] = self._ray.remote(num_cpus=1, num_gpus=0, max_retries=-1, retry_exceptions=False)(fn)
        future: Future[T] = self._tasks[fn].remote(*args, **kwargs).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further call; disconnect, if `connect` made this. Tasks under way end with the connection."""
        del wait, cancel_futures
        self._is_shut_down = True
        if self._owns_connection:
            self._owns_connection = False
            self._ray.shutdown()
