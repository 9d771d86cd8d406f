"""A third party's package with a result that must be tuned; on a machine without a GPU its "tuning" is a matter of the CPU."""

import os
import signal

from jitwarm import TunedArtifact, hookimpl


class Threads(TunedArtifact):
    """What a search over thread counts would find: on each rank another one, unless the ranks agree."""

    name = "threads"
    needs_device = False
    in_use: bytes | None = None

    def fingerprint(self, config):
        return f"{config.dtype} up to {config.max_num_batched_tokens} of tp {config.tp_size}"

    def tune(self, config):
        if os.environ.get("TUNED_DOES") == "dies" and config.tp_rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return b"found by rank %d, process %d" % (config.tp_rank, os.getpid())

    def apply(self, data):
        if not data.startswith(b"found by rank "):
            raise ValueError("these bytes are not of this artifact")
        Threads.in_use = data

    def revert(self):
        Threads.in_use = None


@hookimpl
def jitwarm_tuned_artifacts(config):
    if os.environ.get("TUNED_DOES") == "fails on one rank" and config.tp_rank:
        raise RuntimeError("this rank cannot list")
    return [Threads()]
