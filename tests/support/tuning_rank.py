"""`python tuning_rank.py`: for each path of a SPEC.json on stdin, starts ranks that agree on a tuned artifact, over real gloo.

Each rank is a process, forked from this one, which has imported torch. When all have ended, their statuses are one line.

SPEC: `meeting` (a file that does not exist yet), `timeout_s`, `starts` (which of the ranks come), and `ranks`, each with `root`
and with what it does: `artifact` (false: it lists none), `absent` (why its plugin could not list any), `fingerprint`, `tunes`
(what `tune` answers), `tune` ("raises", "dies", "hangs"), `apply` ("raises", "dies"), `revert` (false: there is none),
`collective`, `merges`, `needs_device`, `may_tune`, `plans` (false: its run failed before that), `fails` (why there is none).
`SPEC.<rank>` has the answer: `outcome`, `error`, `in_use` (what is applied at the end), `n_tuned`, `events`.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path


class Result:
    """A result that needs no device: what the specification says."""

    name = "result"
    distributions = ("pluggy",)

    def __init__(self, does):
        self.does = does
        self.needs_device = does.get("needs_device", False)
        self.is_collective = does.get("collective", False)
        self.in_use, self.n_tuned = None, 0
        if does.get("revert", True):
            self.revert = self._revert
        if does.get("merges"):
            self.merge = b"+".join

    def fingerprint(self, config):
        return self.does.get("fingerprint", "shape 1")

    def tune(self, config):
        self.n_tuned += 1
        self._do("tune")
        return self.does.get("tunes", "tuned").encode()

    def apply(self, data):
        self._do("apply")
        self.in_use = data.decode()

    def _revert(self):
        self.in_use = None

    def _do(self, what):
        does = self.does.get(what)
        if does == "raises":
            raise RuntimeError(f"{what} has failed")
        if does == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if does == "hangs":
            time.sleep(600)


def tuning_of(does, emit, timeout_s):
    from jitwarm import Target, WarmupConfig
    from jitwarm.contract.tuned import RegisteredArtifact, require_artifact
    from jitwarm.deadlines import Deadline
    from jitwarm.engine.tuning import Tuning
    from jitwarm.store import TunedStore

    artifact = Result(does)
    require_artifact(artifact)
    store = TunedStore(Path(does["root"]), lock_timeout_s=10)
    tuning = Tuning(
        WarmupConfig(),
        Target("cuda", "90"),
        store,
        emit,
        Deadline(timeout_s, variable="JITWARM_TUNE_TIMEOUT_S"),
        has_device=False,
        may_tune=does.get("may_tune", True),
    )
    listed = [RegisteredArtifact("acme:result", artifact, "acme", "acme 1.0")] if does.get("artifact", True) else []
    if does.get("plans", True):
        tuning.plan(listed, {"acme": does["absent"]} if "absent" in does else {})
    return artifact, tuning


def main(spec, rank, answer):
    import torch.distributed

    from jitwarm.engine.tuning import take_part
    from jitwarm.integrations.vllm.group import TorchGroup

    spec = json.loads(Path(spec).read_text())
    events = []
    artifact, tuning = tuning_of(
        spec["ranks"][rank], lambda event, **fields: events.append({"event": event, **fields}), spec["timeout_s"] / 2
    )
    store = torch.distributed.FileStore(spec["meeting"], len(spec["ranks"]))

    def meet():
        return TorchGroup(store, rank, len(spec["ranks"]), spec["timeout_s"])

    if why := spec["ranks"][rank].get("fails"):
        take_part(meet(), why)
    else:
        tuning.run(meet)
    last = events[-1] if events[-1:] and events[-1]["event"] == "key_end" else {}
    document = {"outcome": last.get("outcome"), "error": last.get("error"), "in_use": artifact.in_use}
    answer.write_text(json.dumps({**document, "n_tuned": artifact.n_tuned, "events": events}))


def start(spec, rank):
    pid = os.fork()
    if pid:
        return pid
    try:
        main(spec, rank, Path(f"{spec}.{rank}"))
    except BaseException:  # noqa: BLE001 - a forked process must not go on as its parent
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # gloo's threads and a tuning that was left behind are not waited for


def serve():
    import torch.distributed  # noqa: F401

    import jitwarm.engine.tuning
    import jitwarm.integrations.vllm.group  # noqa: F401

    for line in sys.stdin:
        spec = line.strip()
        pids = [start(spec, rank) for rank in json.loads(Path(spec).read_text())["starts"]]
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)


if __name__ == "__main__":
    serve()
