"""Where the store lies if nobody says so, and where each compiler's cache lies in it.

Imports nothing but `os`: vLLM loads this in each of its processes, and pays for every import.
"""

import os
from collections.abc import Mapping

# The compilers' own variables, and the directory below the store's root that each should name.
CACHE_VARIABLES = {"TRITON_CACHE_DIR": "triton", "TILELANG_CACHE_DIR": "tilelang", "CUTE_DSL_CACHE_DIR": "cutedsl"}


def default_root(environ: Mapping[str, str] = os.environ) -> str:
    """`$JITWARM_CACHE_DIR`, else `jitwarm` in the user's cache directory (`$XDG_CACHE_HOME`, else `~/.cache`); absolute."""
    given = environ.get("JITWARM_CACHE_DIR")
    if given:
        return os.path.abspath(os.path.expanduser(given))  # noqa: PTH100, PTH111 - pathlib costs milliseconds
    cache = environ.get("XDG_CACHE_HOME", "").strip() or os.path.expanduser("~/.cache")  # noqa: PTH111 - as above
    return os.path.join(cache, "jitwarm")  # noqa: PTH118 - as above
