"""On the path of a process and of all that it starts: CuTeDSL's real compiles are counted into the file `CUTE_COUNT_LOG`."""

import importlib.util
import os
import sys
from pathlib import Path

_MODULE = "cutlass.base_dsl.compiler"


class _AfterImport:
    """Patches the module right after it was imported, whenever that is."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != _MODULE:
            return None
        sys.meta_path.remove(_AfterImport)
        spec = importlib.util.find_spec(name)
        original = spec.loader.exec_module

        def exec_module(module):
            original(module)
            _count(module.Compiler)

        spec.loader.exec_module = exec_module
        return spec


def _count(compiler):
    original = compiler.compile

    def compile(*args, **kwargs):  # noqa: A001 - the name of what it replaces
        with Path(os.environ["CUTE_COUNT_LOG"]).open("a") as log:
            log.write("compile\n")
        return original(*args, **kwargs)

    compiler.compile = compile


if "CUTE_COUNT_LOG" in os.environ:
    sys.meta_path.insert(0, _AfterImport)
