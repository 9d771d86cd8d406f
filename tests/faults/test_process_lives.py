"""Faults that a compile process survives, in a plan with real Triton keys before and after them, in that same process."""

import pytest
from fault_checks import check

from jitwarm.testing import FAULTS

LIVES = {name: fault for name, fault in FAULTS.items() if not fault.is_deadly and fault.outcome != "timed_out"}


@pytest.mark.parametrize("fault", LIVES.values(), ids=list(LIVES))
def test_a_fault_that_its_process_survives_costs_its_own_key(tmp_path, fault, sound):
    check(tmp_path / "store", "triton", fault, sound("triton"))
