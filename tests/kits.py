"""What several test files need: a key, a kernel of four members, a backend that needs no compiler, a package on disk."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jitwarm import Backend, CompileCount, hookimpl

HERE = Path(__file__).parent
# The module of a plugin without fault.
GOOD = """
from jitwarm import hookimpl
from kits import FourMembers

@hookimpl
def jitwarm_kernels():
    return [FourMembers()]
"""


@dataclass(frozen=True)
class Key:
    n: Any = 0


class FourMembers:
    """A kernel that derives from nothing of ours; its `compile` notes the key. `backend` says who owns it."""

    CompileKey = Key

    def __init__(self, *keys, name="four", backend=None):
        self.keys, self.name, self.backend, self.built = keys, name, backend, []

    def dispatch(self, *, n):
        return Key(n)

    def get_warmup_keys(self, config):
        return list(self.keys)

    def compile(self, key):
        self.built.append(key)
        Workshop.count.n_compiled += 1


class Workshop(Backend):
    """A third party's backend: it owns the kernels that name it, and each of their builds is one compile."""

    name = "workshop"
    count = CompileCount()

    def owns(self, kernel):
        return getattr(kernel, "backend", None) == self.name

    @contextmanager
    def count_compiles(self):
        before, Workshop.count = Workshop.count, CompileCount()
        try:
            yield Workshop.count
        finally:
            Workshop.count = before


class Plugin:
    """Yields the kernels it is given, with the backend that builds them."""

    def __init__(self, *kernels):
        self.kernels = kernels

    @hookimpl
    def jitwarm_kernels(self):
        return self.kernels

    @hookimpl
    def jitwarm_backends(self):
        return [Workshop()]


def install(directory, module, source, *, plugin=None, version="1.0", group="jitwarm.kernels", attribute=""):
    """Write a package whose entry point is `module`, or `module:attribute`, for processes that have `directory` on their path."""
    directory.mkdir(exist_ok=True)
    (directory / f"{module}.py").write_text(source)
    info = directory / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{plugin or module} = {module}{attribute and f':{attribute}'}\n")


def python(*arguments, cwd=None, stdin=None, **variables):
    """Run this interpreter with `arguments`; a variable that is None is unset."""
    environ = {**os.environ, **variables}
    environ = {name: str(value) for name, value in environ.items() if value is not None}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environ,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def json_of(done):
    """The document on stdout; nothing else may be there."""
    return json.loads(done.stdout)
