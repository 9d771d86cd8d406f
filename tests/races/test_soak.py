"""A short run of the soak; `python tests/races/soak.py 1000` is the long one, and docs/explanation/ranks.md has what it gave."""

import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.parametrize(("n_rounds", "seed"), [(15, "2026"), (5, None)], ids=["a seed", "a fresh seed"])
def test_whichever_process_is_killed_each_key_is_compiled_once_and_warm_in_all_others(n_rounds, seed):
    seed = seed or str(time.time_ns() % 1_000_000)
    command = [sys.executable, Path(__file__).with_name("soak.py"), str(n_rounds), seed]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\nagain: {' '.join(map(str, command))}"
