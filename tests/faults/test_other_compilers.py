"""A few faults among keys of the other compilers, in their processes."""

import pytest
from fault_checks import check

from jitwarm.testing import FAULTS

CHOSEN = [
    ("cutedsl", "cutlass", "segfaults"),
    pytest.param("cutedsl", "cutlass", "changes the environment", marks=pytest.mark.soak),
    pytest.param("tilelang", "tilelang", "segfaults", marks=pytest.mark.soak),
    ("tilelang", "tilelang", "loses its directory"),
]


@pytest.mark.parametrize(("compiler", "package", "name"), CHOSEN)
def test_a_fault_costs_its_own_key(tmp_path, compiler, package, name, sound):
    pytest.importorskip(package)
    check(tmp_path / "store", compiler, FAULTS[name], sound(compiler))
