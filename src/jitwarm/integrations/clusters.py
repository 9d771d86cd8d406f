"""The clusters that the command line can name."""

from concurrent.futures import Executor

from jitwarm.errors import UsageError


def connect(hosts: str) -> Executor:
    """The executor of a cluster; leaving it, as a context manager, disconnects.

    Args:
        hosts: `ray`, `ray://HOST:10001` (Ray), or `tcp://HOST:8786` (Dask's scheduler; also `tls://`, `ucx://`).

    Raises:
        UsageError: It names no cluster.
        HostsUnavailableError: The extra is not installed, or the cluster does not answer.
    """
    if hosts == "ray" or hosts.startswith("ray://"):
        from jitwarm.integrations.ray import RayExecutor  # noqa: PLC0415 - an extra

        return RayExecutor.connect("auto" if hosts == "ray" else hosts)
    if hosts.partition("://")[0] in ("tcp", "tls", "ucx") and "://" in hosts:
        from jitwarm.integrations.dask import DaskExecutor  # noqa: PLC0415 - an extra

        return DaskExecutor.connect(hosts)
    raise UsageError(
        f"unknown hosts {hosts!r}", "write 'ray' or 'ray://HOST:10001' for Ray, 'tcp://HOST:8786' for Dask's scheduler"
    )
