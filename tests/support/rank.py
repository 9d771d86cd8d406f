"""`python rank.py ROOT N PLUGIN`: one of N ranks of a server that start together; its report as JSON on stdout.

The ranks meet at a barrier of files, so that all of them want all keys at the same moment.
"""

import json
import os
import sys
import time
from pathlib import Path


def main(root, n_ranks, plugin):
    from jitwarm import Target, WarmupConfig
    from jitwarm.session import Session
    from jitwarm.settings import Asked, Settings

    settings = Settings(plugins=(plugin,), run_id="run", plan_timeout_s=600)  # many import a compiler at once
    session = Session(Asked(WarmupConfig(), settings), Target("cuda", "90"), root=Path(root), n_ranks=int(n_ranks))
    plan = session.plan()
    barrier = Path(f"{root}.barrier")
    barrier.mkdir(exist_ok=True)
    (barrier / str(os.getpid())).touch()
    while len(list(barrier.iterdir())) < int(n_ranks):
        time.sleep(0.01)
    report = session.run(plan)
    session.finish()
    sys.stdout.write(json.dumps({**report.to_json(), "n_warm": n_warm(session, plan)}))


def n_warm(session, plan):
    """How many keys this process could launch without a compile or a look at the disk, by their backends' own word."""
    kernels = {kernel.id: kernel.kernel for kernel in session.kernels}
    n = 0
    for planned, key in plan.keys:
        with session._policy.pinned(kernels[planned.id], session.target) as involved:
            n += any(backend.is_warm(kernels[planned.id], key.key) for backend in involved)
    return n


if __name__ == "__main__":
    main(*sys.argv[1:])
