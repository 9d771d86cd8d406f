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

    settings = Settings(plugins=(plugin,), run_id="run")
    session = Session(Asked(WarmupConfig(), settings), Target("cuda", "90"), root=Path(root))
    plan = session.plan()
    barrier = Path(f"{root}.barrier")
    barrier.mkdir(exist_ok=True)
    (barrier / str(os.getpid())).touch()
    while len(list(barrier.iterdir())) < int(n_ranks):
        time.sleep(0.01)
    report = session.run(plan)
    session.finish()
    sys.stdout.write(json.dumps(report.to_json()))


if __name__ == "__main__":
    main(*sys.argv[1:])
