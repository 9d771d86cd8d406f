"""A server in short: warm the installed plugin `served`, arm the monitor, launch, and say what compiled.

    python serve_once.py ROOT N ...

Launches `served_kernels.SCALE` with each N, and once a function that no plugin declares; as far as that goes without a GPU.
Settings come from the environment. Prints JSON: outcomes, and what the monitor said.
"""

import contextlib
import json
import sys
from pathlib import Path

import torch

from jitwarm import Target
from jitwarm.errors import NoDeviceError
from jitwarm.session import Session
from jitwarm.settings import read


def main(root, *sizes):
    events = []
    session = Session(read(), Target("cuda", "90"), root=Path(root), listeners=[events.append])
    plan = session.plan()
    report = session.run(plan)
    with session.monitor(plan):
        from served_kernels import SCALE, square

        x, out = torch.empty(64), torch.empty(64)
        for n in map(int, sizes):
            with contextlib.suppress(NoDeviceError):
                SCALE(x, out, n, 2.0, grid=(1,), n=n)
        with contextlib.suppress(NoDeviceError):
            square[(1,)](x, 64, BLOCK=64, num_warps=2)
    session.finish()
    said = [event for event in events if event["event"] in ("unexpected_compile", "reloaded")]
    rows = [(row.label, row.outcome) for row in report.rows]
    print(json.dumps({"outcomes": report.outcomes, "rows": rows, "said": said}))


if __name__ == "__main__":
    main(*sys.argv[1:])
