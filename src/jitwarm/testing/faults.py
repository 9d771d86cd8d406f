"""Every fault, by name."""

from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from jitwarm.testing import answers, deaths, hangs, leftovers
from jitwarm.testing.fault import Fault


def _faults_of(module: ModuleType) -> list[Fault]:
    return [value for value in vars(module).values() if isinstance(value, Fault)]


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {fault.name: fault for module in (answers, deaths, hangs, leftovers) for fault in _faults_of(module)}
)
