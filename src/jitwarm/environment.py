"""What of the environment is looked at before anything else: switches, where the store lies, where the compilers' caches lie.

Imports nothing but `os` and `time`: vLLM loads this in each of its processes, and pays for every import.
"""

import os
import time
from collections.abc import Mapping

ON, OFF = frozenset({"1", "true", "yes", "on", "all"}), frozenset({"", "0", "false", "no", "off"})
# The compilers' own variables, and the directory below the store's root that each should name.
CACHE_VARIABLES = {"TRITON_CACHE_DIR": "triton", "TILELANG_CACHE_DIR": "tilelang", "CUTE_DSL_CACHE_DIR": "cutedsl"}

# Ids of this process and of those that started it, the first one first, joined by "/"; an id begins with the second in which it
# was given, in hexadecimal. Tells which processes belong together: process ids repeat in the next container, and nobody sees
# parents across hosts.
LINEAGE = "JITWARM_LINEAGE"
_joined_in: list[int] = []

# Variables that change what a compiler makes, or whether it can: the beginnings of names, and whole names.
_COMPILER_PREFIXES = ("TRITON_", "CUTE_DSL_", "TILELANG_", "TVM_", "LLVM_", "MLIR_", "NVPTX_", "PTXAS_", "NVCC_")
_COMPILER_NAMES = frozenset(
    {"CC", "CXX", "CUDA_HOME", "CUDA_PATH", "DISABLE_PTXAS_OPT", "HIP_PATH", "PATH", "ROCM_PATH"}
)


def compiler_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What of the environment the compilers look at, without the places of their caches."""
    return {
        name: value
        for name, value in environ.items()
        if (name in _COMPILER_NAMES or name.startswith(_COMPILER_PREFIXES)) and name not in CACHE_VARIABLES
    }


def place_caches(variables: Mapping[str, str], root: str, *, insist: bool = False) -> bool:
    """Point the compilers' disk caches below a store's root, before a compiler is imported; a user's value wins.

    Args:
        variables: Those of the compilers, with the directory below the root for each.
        root: The store's.
        insist: A user's value makes way.

    Returns:
        Whether one did.

    Side effects: sets the variables in `os.environ`.
    """
    makes_way = False
    for variable, directory in variables.items():
        place, earlier = os.path.join(root, directory), os.environ.get(variable)  # noqa: PTH118 - pathlib costs milliseconds
        if earlier is None or (insist and earlier != place):
            os.environ[variable] = place
            makes_way |= earlier is not None
    return makes_way


def join_lineage() -> None:
    """Add this process to the lineage that it was started with, for itself and for those that it starts. Again is harmless.

    Side effects: sets `JITWARM_LINEAGE` in `os.environ`.
    """
    if _joined_in == [os.getpid()]:
        return
    _joined_in[:] = [os.getpid()]
    above, own = os.environ.get(LINEAGE, ""), f"{int(time.time()):x}-{os.urandom(4).hex()}"
    os.environ[LINEAGE] = f"{above}/{own}" if above else own


def is_disabled(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `JITWARM_DISABLE` switches everything off."""
    return environ.get("JITWARM_DISABLE", "").strip().lower() in ON | {"*"}


def manages_caches(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the compilers' caches are ours to place: unless `JITWARM_MANAGE_CACHES` says no; set and empty says nothing."""
    return environ.get("JITWARM_MANAGE_CACHES", "").strip().lower() not in OFF - {""}


def default_root(environ: Mapping[str, str] = os.environ) -> str:
    """`$JITWARM_CACHE_DIR`, else `jitwarm` in the user's cache directory (`$XDG_CACHE_HOME`, else `~/.cache`); absolute."""
    given = environ.get("JITWARM_CACHE_DIR")
    if given:
        return os.path.abspath(os.path.expanduser(given))  # noqa: PTH100, PTH111 - pathlib costs milliseconds
    cache = environ.get("XDG_CACHE_HOME", "").strip() or os.path.expanduser("~/.cache")  # noqa: PTH111 - as above
    return os.path.join(cache, "jitwarm")  # noqa: PTH118 - as above
