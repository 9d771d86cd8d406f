"""jitwarm: compile every kernel specialization that a configuration can reach, before the first request.

Importing this package loads the standard library and pluggy and nothing else of weight: no torch, no compiler. The adapters'
base classes and the runner are imported when they are first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jitwarm.authoring import CallableKernel, JitKernel
from jitwarm.contract.backend import Backend, CompileCount, Finding, current_target
from jitwarm.contract.config import AttentionGroup, MoELayer, WarmupConfig
from jitwarm.contract.descriptors import Dim, IntClass, TensorSpec
from jitwarm.contract.kernel import Kernel, Outcome
from jitwarm.contract.keys import decode_key, dtype_name, encode_key, key_digest
from jitwarm.contract.spaces import Choices, IntRange, rows
from jitwarm.contract.target import Target, Toolchain
from jitwarm.errors import JitwarmError, NeedsModel, Skipped, UnencodableKey, Unresolved
from jitwarm.hookspecs import hookimpl
from jitwarm.tracing import Trace, trace, trace_dispatch

if TYPE_CHECKING:
    from jitwarm.backends._cutedsl import CuteKernel
    from jitwarm.backends._tilelang import TileLangKernel
    from jitwarm.backends._triton import TritonKernel
    from jitwarm.engine.compiler import default_compile, default_warmup_keys
    from jitwarm.engine.report import Report
    from jitwarm.session import warm

_LAZY = {
    "CuteKernel": "jitwarm.backends._cutedsl",
    "TileLangKernel": "jitwarm.backends._tilelang",
    "TritonKernel": "jitwarm.backends._triton",
    "default_compile": "jitwarm.engine.compiler",
    "default_warmup_keys": "jitwarm.engine.compiler",
    "Report": "jitwarm.engine.report",
    "warm": "jitwarm.session",
}

__all__ = [
    "AttentionGroup",
    "Backend",
    "CallableKernel",
    "Choices",
    "CompileCount",
    "CuteKernel",
    "Dim",
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
    "UnencodableKey",
    "Unresolved",
    "WarmupConfig",
    "current_target",
    "decode_key",
    "default_compile",
    "default_warmup_keys",
    "dtype_name",
    "encode_key",
    "hookimpl",
    "key_digest",
    "rows",
    "trace",
    "trace_dispatch",
    "warm",
]


def __getattr__(name: str) -> Any:
    """Import what is heavy when it is first asked for."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
