"""jitwarm: compile every kernel specialization that a configuration can reach, before the first request.

Importing this package loads next to nothing: a server imports it at start, in each of its processes. Every public name is
imported when it is first asked for, and none of them imports torch or a compiler.

PYTEST_DONT_REWRITE: there is no assertion here, and pytest is not to warn where this was imported before it.
"""

import importlib

TYPE_CHECKING = False  # type checkers take it as true; importing `typing` for it would cost more than all the rest
if TYPE_CHECKING:
    from typing import Any

    from jitwarm.api import bake, warm
    from jitwarm.authoring import CallableKernel, JitKernel
    from jitwarm.backends._cutedsl import CuteKernel
    from jitwarm.backends._tilelang import TileLangKernel
    from jitwarm.backends._triton import TritonKernel
    from jitwarm.contract.backend import Backend, CompileCount, Finding, artifact_dir, current_target
    from jitwarm.contract.config import AttentionGroup, MoELayer, WarmupConfig
    from jitwarm.contract.descriptors import Dim, IntClass, TensorSpec
    from jitwarm.contract.kernel import Kernel, Outcome
    from jitwarm.contract.keys import decode_key, dtype_name, encode_key, key_digest
    from jitwarm.contract.spaces import Choices, IntRange, rows
    from jitwarm.contract.target import Target, Toolchain
    from jitwarm.contract.tuned import TunedArtifact
    from jitwarm.engine.compiler import default_compile, default_warmup_keys
    from jitwarm.engine.report import Report
    from jitwarm.errors import FetchError, JitwarmError, NeedsModel, Skipped, UnencodableKey, Unresolved
    from jitwarm.fetching import fetch
    from jitwarm.hookspecs import hookimpl
    from jitwarm.tracing import Trace, trace, trace_dispatch

_MODULES = {
    "authoring": (
        "CallableKernel",
        "JitKernel",
    ),
    "backends._cutedsl": ("CuteKernel",),
    "backends._tilelang": ("TileLangKernel",),
    "backends._triton": ("TritonKernel",),
    "contract.backend": (
        "Backend",
        "CompileCount",
        "Finding",
        "artifact_dir",
        "current_target",
    ),
    "contract.config": (
        "AttentionGroup",
        "MoELayer",
        "WarmupConfig",
    ),
    "contract.descriptors": (
        "Dim",
        "IntClass",
        "TensorSpec",
    ),
    "contract.kernel": (
        "Kernel",
        "Outcome",
    ),
    "contract.keys": (
        "decode_key",
        "dtype_name",
        "encode_key",
        "key_digest",
    ),
    "contract.spaces": (
        "Choices",
        "IntRange",
        "rows",
    ),
    "contract.target": (
        "Target",
        "Toolchain",
    ),
    "contract.tuned": ("TunedArtifact",),
    "engine.compiler": (
        "default_compile",
        "default_warmup_keys",
    ),
    "engine.report": ("Report",),
    "errors": (
        "FetchError",
        "JitwarmError",
        "NeedsModel",
        "Skipped",
        "UnencodableKey",
        "Unresolved",
    ),
    "fetching": ("fetch",),
    "hookspecs": ("hookimpl",),
    "api": (
        "bake",
        "warm",
    ),
    "tracing": (
        "Trace",
        "trace",
        "trace_dispatch",
    ),
}
_HOME = {name: f"jitwarm.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "AttentionGroup",
    "Backend",
    "CallableKernel",
    "Choices",
    "CompileCount",
    "CuteKernel",
    "Dim",
    "FetchError",
    "Finding",
    "IntClass",
    "IntRange",
    "JitKernel",
    "JitwarmError",
    "Kernel",
    "MoELayer",
    "NeedsModel",
    "Outcome",
    "Report",
    "Skipped",
    "Target",
    "TensorSpec",
    "TileLangKernel",
    "Toolchain",
    "Trace",
    "TritonKernel",
    "TunedArtifact",
    "UnencodableKey",
    "Unresolved",
    "WarmupConfig",
    "artifact_dir",
    "bake",
    "current_target",
    "decode_key",
    "default_compile",
    "default_warmup_keys",
    "dtype_name",
    "encode_key",
    "fetch",
    "hookimpl",
    "key_digest",
    "rows",
    "trace",
    "trace_dispatch",
    "warm",
]


def __getattr__(name: str) -> "Any":
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
