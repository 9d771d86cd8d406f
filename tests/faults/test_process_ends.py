"""Faults that cost a compile process, in a plan with real Triton keys before and after them."""

import pytest
from fault_checks import check

from jitwarm.testing import FAULTS

ENDS = {name: fault for name, fault in FAULTS.items() if fault.is_deadly or fault.outcome == "timed_out"}


@pytest.mark.parametrize("fault", ENDS.values(), ids=list(ENDS))
def test_a_fault_that_ends_its_process_costs_its_own_key(tmp_path, fault, sound):
    check(tmp_path / "store", "triton", fault, sound("triton"))
