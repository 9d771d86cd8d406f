"""What this container may use of the machine: processors and memory. Never `os.cpu_count()`, which counts the machine's."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_N_PARTS = 3  # hierarchy, controllers, path


def usable_cpus(cgroup: Path = _CGROUP, own: Path = Path("/proc/self/cgroup")) -> int:
    """The processors that the cgroup's set and quota leave, at least 1.

    This process's own affinity does not count: vLLM binds a worker to one core, and compile processes are free of that.

    Args:
        cgroup: Where cgroups are mounted.
        own: The file that names this process's cgroup.
    """
    quotas = [quota for directory in _directories(cgroup, own) if (quota := _quota(directory)) is not None]
    n_cpus = _n_in_set(cgroup, own) or os.cpu_count() or 1
    return max(1, min([n_cpus, *(int(quota) for quota in quotas)]))


def usable_memory_bytes(cgroup: Path = _CGROUP, own: Path = Path("/proc/self/cgroup")) -> int:
    """The memory that the cgroup leaves, at most the machine's.

    Args:
        cgroup: Where cgroups are mounted.
        own: The file that names this process's cgroup.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [limit for directory in _directories(cgroup, own, "memory") if (limit := _memory(directory)) is not None]
    return min([machine, *limits])


def _directories(cgroup: Path, own: Path, controller: str = "cpu") -> list[Path]:
    """This process's cgroup and those above it, in version 2, or one controller's in version 1."""
    try:
        lines = [parts for line in own.read_text().splitlines() if len(parts := line.split(":", 2)) == _N_PARTS]
    except OSError:
        return [cgroup]
    found = [cgroup]
    for _, controllers, name in lines:
        mounted = cgroup if not controllers else cgroup / controller if controller in controllers.split(",") else None
        if mounted is not None:
            path = mounted / name.lstrip("/")
            found += [path, *(above for above in path.parents if above.is_relative_to(mounted))]
    return found


def _quota(directory: Path) -> float | None:
    """Processors' worth of time per period, or None for no limit."""
    try:
        limit, period = (directory / "cpu.max").read_text().split()
        return None if limit == "max" else float(limit) / float(period)
    except (OSError, ValueError):
        pass
    try:
        limit, period = ((directory / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return None if int(limit) < 0 else float(limit) / float(period)
    except (OSError, ValueError):
        return None


def _memory(directory: Path) -> int | None:
    """The limit on memory, or None; version 1 writes a number larger than any machine for no limit."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            return int((directory / name).read_text())
        except (OSError, ValueError):  # not there, or `max`
            continue
    return None


def _n_in_set(cgroup: Path, own: Path) -> int:
    """Size of the cgroup's set of processors; 0 where it has none."""
    for directory in _directories(cgroup, own)[1:]:
        try:
            text = (directory / "cpuset.cpus.effective").read_text().strip()
        except OSError:
            continue
        if text:
            return sum(_size(part) for part in text.split(","))
    return 0


def _size(part: str) -> int:
    first, _, last = part.partition("-")
    return int(last or first) - int(first) + 1
