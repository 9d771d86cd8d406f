"""`python one_run.py ROOT module:Kernel ...`: warm kernels in this process through a real session, print the report as JSON.

Each process is what a server's start would be, so tests of "the second process compiles nothing" call it twice. Compiles are
counted here independently of jitwarm's own counters.
"""

import importlib
import json
import os
import sys
from pathlib import Path

COUNTS = {"cute": 0, "tilelang": 0, "triton": 0}


def count_compiles():
    """Count at the compilers themselves, for those that the environment names."""
    wanted = os.environ.get("COUNT", "").split(",")
    if "cute" in wanted:
        from cutlass.base_dsl.compiler import Compiler

        original_cute = Compiler.compile
        Compiler.compile = lambda *a, **k: (_add("cute"), original_cute(*a, **k))[1]
    if "tilelang" in wanted:
        from tilelang.contrib import nvcc

        original_nvcc = nvcc.compile_cuda
        nvcc.compile_cuda = lambda *a, **k: (_add("tilelang"), original_nvcc(*a, **k))[1]


def _add(name):
    COUNTS[name] += 1


def main(root, *names):
    from jitwarm import Target, WarmupConfig
    from jitwarm.session import Session
    from jitwarm.settings import Asked, Settings

    target = Target.parse(os.environ.get("TARGET", "cuda:90"))
    asked = Asked(WarmupConfig(dtype="float32"), Settings(plugins=(), isolate=False))
    session = Session(asked, target, root=Path(root))
    count_compiles()
    objects = [
        getattr(importlib.import_module(module), kernel)() for module, _, kernel in (n.partition(":") for n in names)
    ]

    class Plugin:
        def jitwarm_kernels(self):
            return objects

    from jitwarm import hookimpl

    Plugin.jitwarm_kernels = hookimpl(Plugin.jitwarm_kernels)
    session.registry.add("tests", Plugin())
    report = session.run(session.plan()).to_json()
    report["counted"] = COUNTS
    report["warm_here"] = [
        bool(kernel.is_warm(key))
        for kernel in objects
        if hasattr(kernel, "is_warm")
        for key in kernel.get_warmup_keys(asked.config)
    ]
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
