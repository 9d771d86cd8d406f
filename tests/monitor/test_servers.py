"""The monitor of a server that is not vLLM: `jitwarm.warm(..., monitor=...)`, in a process of its own."""

import os
import sys
import textwrap
from pathlib import Path

import kits
import pytest

pytest.importorskip("triton")

KERNELS = Path(__file__).parents[1] / "vllm_engine" / "packages" / "alpha_kernels.py"
SERVER = """
import contextlib, logging, torch
import jitwarm
from jitwarm.errors import NoDeviceError, UnexpectedCompileError
logging.basicConfig(format="%(name)s %(levelname)s %(message)s")
report = jitwarm.warm({{"dtype": "float32", "max_num_batched_tokens": 64}}, target="cuda:90", monitor="{mode}")
print(report.outcomes)
from alpha_kernels import Scale
for n in (64, 24):
    try:
        Scale()(torch.empty(64), torch.empty(64), n, 2.0, grid=(1,), n=n, dtype="float32")
    except NoDeviceError:
        print(n, "launched")
    except UnexpectedCompileError as exc:
        print(n, "raised", exc.message)
"""


@pytest.mark.parametrize(
    ("mode", "then"), [("warn", "24 launched"), ("error", "24 raised alpha:Scale"), ("off", "24 launched")]
)
def test_warm_arms_the_monitor_for_the_rest_of_the_process(tmp_path, mode, then):
    kits.install(tmp_path / "site", "alpha_kernels", KERNELS.read_text(), plugin="alpha")
    done = kits.python(
        "-c",
        textwrap.dedent(SERVER.format(mode=mode)),
        cwd=tmp_path,
        PYTHONPATH=os.pathsep.join([str(tmp_path / "site"), *filter(None, sys.path)]),
        CUDA_VISIBLE_DEVICES="",
        JITWARM_CACHE_DIR=tmp_path / "store",
        JITWARM_PLUGINS="alpha",
    )
    assert done.returncode == 0, done.stderr
    assert "64 launched" in done.stdout
    assert then in done.stdout
    warnings = [line for line in done.stderr.splitlines() if line.startswith("jitwarm WARNING")]
    assert len(warnings) == (mode != "off")
    assert all("n 24 is outside [16, 64] by 16" in line for line in warnings)
    log = "".join(file.read_text() for file in (tmp_path / "store").glob("events/*/*.jsonl"))
    assert ('"monitor_ended"' in log) == (mode != "off")
