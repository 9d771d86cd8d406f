"""Questions about installed packages that need no import of them."""

import importlib.util
from functools import cache

import importlib_metadata


@cache  # a process keeps the version that it has imported; asked for every key, the files would be read each time
def installed_version(distribution: str) -> str:
    """The version of an installed distribution; `none` where it is not installed."""
    try:
        return importlib_metadata.version(distribution)
    except importlib_metadata.PackageNotFoundError:
        return "none"


def missing_package(module: str, extra: str) -> str:
    """How to install what provides `module`; empty where it is there."""
    return "" if importlib.util.find_spec(module) else f"pip install 'jitwarm[{extra}]'"
