"""Random dispatch programs over the whole accepted syntax, against a call at every point.

`python tests/support/programs.py SEED COUNT` is the soak of the same check.
"""

import programs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@given(seed=st.integers(2_000_000_000, 3_000_000_000))
@settings(max_examples=1000, deadline=None)
def test_random_programs_agree_with_brute_force(seed):
    complaint = programs.check(seed)
    assert complaint is None, complaint


@pytest.mark.parametrize("seed", [*range(1000), *(pytest.param(n, marks=pytest.mark.soak) for n in range(1000, 2000))])
def test_a_fixed_set_of_programs_agrees_with_brute_force(seed):
    complaint = programs.check(seed)
    assert complaint is None, complaint
