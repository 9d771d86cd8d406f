"""`jitwarm doctor`: look at everything that a bake or a warm-up needs, before it fails in the middle."""

import importlib.util
import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jitwarm.contract.backend import Backend, Finding
from jitwarm.contract.target import Target
from jitwarm.environment import is_disabled

PLUGIN = "jitwarm"  # our name in the group vllm.general_plugins

# File systems on which several machines may see one directory.
_SHARED = frozenset({"nfs", "nfs4", "lustre", "ceph", "cifs", "smb3", "fuse.sshfs", "9p", "virtiofs", "gpfs", "beegfs"})


def examine(root: Path, target: Target | None, target_problem: str, backends: Sequence[Backend]) -> Iterator[Finding]:
    """Every finding, in the order in which a person wants to read them.

    Args:
        root: The store.
        target: What would be built for, or None.
        target_problem: Why there is none.
        backends: All that are known.
    """
    yield _target(target, target_problem)
    yield _program("cc", ("cc", "gcc", "clang"), "install gcc: Triton before 3.8 and TileLang build host code with it")
    yield _ptxas()
    if all(backend.missing() for backend in backends):
        yield Finding("backends", "error", "none is installed", "pip install 'jitwarm[all]'")
    for backend in backends:
        yield from backend.examine()
        if target and not backend.missing():
            yield from _support(backend, target)
    yield _directory("store", root, "JITWARM_CACHE_DIR")
    for name, variable, place in _cache_places(root, backends):
        yield _directory(f"cache of {name}", place, variable)
    yield from _vllm()


def _target(target: Target | None, problem: str) -> Finding:
    if target is None:
        return Finding("target", "error", problem, "pass --target cuda:90 or set JITWARM_TARGET")
    return Finding("target", "ok", str(target))


def _vllm() -> Iterator[Finding]:
    """Whether vLLM, where it is installed, will load us: it does not say so itself."""
    allowed = os.environ.get("VLLM_PLUGINS")
    if importlib.util.find_spec("vllm") is None and allowed is None:
        return
    if allowed is not None and PLUGIN not in allowed.split(","):  # as vLLM reads it: exact names, no spaces
        wanted = ",".join(filter(None, [allowed, PLUGIN]))
        yield Finding(
            "vllm plugin", "warning", f"VLLM_PLUGINS={allowed!r} leaves jitwarm out", f"set VLLM_PLUGINS={wanted}"
        )
    elif is_disabled():
        yield Finding("vllm plugin", "warning", "switched off by JITWARM_DISABLE", "unset it to have kernels warmed")
    else:
        yield Finding("vllm plugin", "ok", "vLLM loads it in each of its processes")


def _program(check: str, names: Iterable[str], fix: str) -> Finding:
    found = next(filter(None, map(shutil.which, names)), None)
    return Finding(check, "ok", found) if found else Finding(check, "warning", "not found", fix)


def _ptxas() -> Finding:
    replaced = os.environ.get("TRITON_PTXAS_PATH")
    if replaced and not Path(replaced).exists():
        return Finding(
            "ptxas", "error", f"TRITON_PTXAS_PATH={replaced} does not exist", "unset it: Triton brings its own"
        )
    program = replaced or shutil.which("ptxas")
    if program is None:
        return Finding("ptxas", "ok", "Triton and CuTeDSL bring their own")
    try:
        text = subprocess.run(  # noqa: S603 - the assembler that Triton itself would run
            [program, "--version"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        return Finding("ptxas", "warning", f"{program} does not run: {exc}", "Triton and CuTeDSL bring their own")
    return Finding("ptxas", "ok", f"{program} ({text.strip().splitlines()[-1]})")


def _support(backend: Backend, target: Target) -> Iterator[Finding]:
    if reason := backend.unsupported(target):
        yield Finding(f"{backend.name} for {target}", "warning", reason, "its keys will be `unresolved`")
    elif reason := backend.missing_toolchain(target):
        yield Finding(f"{backend.name} for {target}", "error", reason, "keys that are on disk already still load")


def _cache_places(root: Path, backends: Sequence[Backend]) -> Iterator[tuple[str, str, Path]]:
    for backend in backends:
        for variable, directory in backend.cache_variables.items():
            yield backend.name, variable, Path(os.environ.get(variable) or root / directory)


def _directory(check: str, place: Path, variable: str) -> Finding:
    """Whether a directory (or the nearest one above it that exists) can be written, is private, and is local."""
    existing = next(path for path in (place, *place.parents) if path.exists())
    kind = _file_system(existing)
    shared = f", shared file system ({kind})" if kind in _SHARED else ""
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            check, "error", f"{place} cannot be written{shared}", f"set {variable} to a directory that you can write"
        )
    if _is_read_only(existing):
        return Finding(
            check, "error", f"{place} is on a read-only file system", f"set {variable} to a writable directory"
        )
    if place.exists() and place.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Finding(check, "error", f"{place} can be written by others: it holds code", f"chmod go-w {place}")
    if shared:
        return Finding(
            check,
            "warning",
            f"{place} is writable{shared}",
            "several machines may see it; give each arch its own directory",
        )
    return Finding(check, "ok", f"{place} is writable" + ("" if place.exists() else " (will be made)"))


def _is_read_only(place: Path) -> bool:
    return bool(os.statvfs(place).f_flag & os.ST_RDONLY)


def _file_system(place: Path) -> str:
    """The type of the mount that `place` lies on, from /proc/mounts; empty where that is not known."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    inside = [(len(point), kind) for point, kind in mounts if place.is_relative_to(point)]
    return max(inside, default=(0, ""))[1]
