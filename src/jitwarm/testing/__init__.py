"""For authors of kernels and plugins, for integrators, and for ourselves.

    from jitwarm.testing import check_plugin

    check_plugin("acme").require()

`check_plugin` checks a plugin against the contract. `no_cold_compiles` fails where something compiles; pytest has it as a
marker. `FAULTS` are the faults that a compiler may have, and a `FaultyKernel` has them. Importing this package loads nothing
but itself: a name is loaded when it is first used, and none of them loads a GPU stack.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jitwarm.errors import NoDeviceError
    from jitwarm.testing.checklist import Check, CheckList, Status
    from jitwarm.testing.compiles import Compile, no_cold_compiles
    from jitwarm.testing.fault import Fault
    from jitwarm.testing.faults import FAULTS
    from jitwarm.testing.kernel import FaultyKernel
    from jitwarm.testing.plugin_check import PluginCheck, check_plugin, plugin_checks

_HOME = {
    "FAULTS": "testing.faults",
    "Check": "testing.checklist",
    "CheckList": "testing.checklist",
    "Compile": "testing.compiles",
    "Fault": "testing.fault",
    "FaultyKernel": "testing.kernel",
    "NoDeviceError": "errors",
    "PluginCheck": "testing.plugin_check",
    "Status": "testing.checklist",
    "check_plugin": "testing.plugin_check",
    "no_cold_compiles": "testing.compiles",
    "plugin_checks": "testing.plugin_check",
}

__all__ = [
    "FAULTS",
    "Check",
    "CheckList",
    "Compile",
    "Fault",
    "FaultyKernel",
    "NoDeviceError",
    "PluginCheck",
    "Status",
    "check_plugin",
    "no_cold_compiles",
    "plugin_checks",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"jitwarm.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
