"""A Dask cluster as an executor of `concurrent.futures`: `pip install 'jitwarm[dask]'`.

Calls are carried by name, so every worker needs jitwarm installed.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from jitwarm.errors import HostsUnavailableError, text_of

P = ParamSpec("P")
T = TypeVar("T")
_CONNECT_S = 30


class DaskExecutor(Executor):
    """Submits calls to the workers of a Dask client.

    Args:
        client: A `distributed.Client`.

    Attributes:
        n_slots: Threads of all workers, counted when it was made.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        # Not pure: the same text, sent again after a failure, is another call. A worker that dies is not an exception of
        # the call, so these are for errors on the way; Dask itself runs again what was lost with a worker.
        self._executor = client.get_executor(pure=False, retries=2)
        self.n_slots = sum(client.nthreads().values())
        self._owns_client = False

    @classmethod
    def connect(cls, address: str) -> "DaskExecutor":
        """Connect to a scheduler; `shutdown` disconnects.

        Args:
            address: `tcp://HOST:8786`, or another address that Dask knows.

        Raises:
            HostsUnavailableError: Dask is not installed, or no scheduler answers within 30 s.
        """
        try:
            import distributed  # noqa: PLC0415 - an extra
        except ImportError as exc:
            raise HostsUnavailableError("Dask is not installed", "pip install 'jitwarm[dask]'") from exc
        try:
            client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
        except Exception as exc:
            raise HostsUnavailableError(
                f"no Dask scheduler answers at {address}: {text_of(exc).splitlines()[0]}",
                "start one with `dask scheduler`, or name it: --hosts tcp://HOST:8786",
            ) from exc
        executor = cls(client)
        executor._owns_client = True
        return executor

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a module-level function on some worker; again on another one where a worker dies.

        Raises:
            RuntimeError: The executor was shut down.
        """
        future: Future[T] = self._executor.submit(fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further call; disconnect, if `connect` made this."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        if self._owns_client:
            self._owns_client = False
            self._client.close()
