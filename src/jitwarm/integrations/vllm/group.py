"""The ranks of one vLLM engine as a group that can agree, across nodes, too.

They meet where the engine's own process groups have met, and then talk over connections of their own: a message of ours that
comes late in the engine's own group would be taken there for one of vLLM's.
"""

import datetime as dt
import importlib
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jitwarm.engine.agreement import Alone, Group
from jitwarm.engine.tuning import take_part
from jitwarm.errors import GroupError, text_of
from jitwarm.integrations.vllm import complain
from jitwarm.settings import Settings

_STATE = "vllm.distributed.parallel_state"
_MAX_BYTES = 1 << 30
_MEETINGS = itertools.count()  # every rank of an engine warms up equally often


class Meeting:
    """This rank's part in what all ranks of an engine agree upon: taken once, also by a rank whose warm-up fails.

    Args:
        vllm_config: vLLM's configuration.
        settings: `tune` and `tune_timeout_s`. With `tune` off there is no meeting.
    """

    def __init__(self, vllm_config: Any, settings: Settings) -> None:
        self._vllm_config = vllm_config
        self._settings = settings
        self._is_over = settings.tune == "off"

    def __call__(self) -> Group:
        """Meet the others.

        Raises:
            GroupError: Not all of them came.
        """
        if self._is_over:
            return Alone()
        self._is_over = True
        return group_of(self._vllm_config, self._settings.tune_timeout_s)

    def excuse(self, why: str) -> None:
        """Tell the others, unless they have been met, that this rank applies nothing; so none of them does."""
        try:
            take_part(self(), why)
        except GroupError as exc:
            complain(f"the other ranks were not told: {exc}")


def group_of(vllm_config: Any, timeout_s: float) -> Group:
    """The ranks of this worker's engine. Collective: every rank of the engine calls it, or the others wait for `timeout_s`.

    Args:
        vllm_config: vLLM's configuration.
        timeout_s: Longest that one message may take, and so the longest that one rank can be ahead of another.

    Raises:
        GroupError: Ranks are missing; or the engine is elastic, and its ranks do not all warm up together.
    """
    if getattr(getattr(vllm_config, "parallel_config", None), "enable_elastic_ep", False):
        raise GroupError("the ranks of an elastic engine do not warm up together", "tune in an engine of fixed size")
    with _told("the ranks of this engine have nowhere to meet"):
        state = sys.modules.get(_STATE)
        world = state.get_world_group() if state and state.model_parallel_is_initialized() else None
        if world is None or world.world_size == 1:
            return Alone()
        c10d = importlib.import_module("torch.distributed.distributed_c10d")
        meeting = f"jitwarm/{next(_MEETINGS)}/{'-'.join(map(str, world.ranks))}"
        store = c10d.PrefixStore(meeting, c10d._get_default_store())  # noqa: SLF001 - it has no public name
    return TorchGroup(store, world.rank_in_group, world.world_size, timeout_s)


class TorchGroup:
    """Ranks that talk through gloo, connected to one another by this object alone: torch does not know of the group.

    Args:
        store: A store of torch's that all of them see, with no key in it. All of them construct this at the same moment.
        rank: Of this process.
        size: Number of ranks.
        timeout_s: Longest that one message may take, the meeting included.

    Raises:
        GroupError: Not all of them came in time.
    """

    def __init__(self, store: Any, rank: int, size: int, timeout_s: float) -> None:
        self.rank, self.size = rank, size
        self._torch = importlib.import_module("torch")
        self._distributed = importlib.import_module("torch.distributed")
        with _told("the ranks did not meet"):
            timeout = dt.timedelta(seconds=timeout_s)
            self._gloo = self._distributed.ProcessGroupGloo(store, rank, size, timeout)

    def all_gather(self, text: str) -> list[str]:
        """The text of every rank, in the order of ranks."""
        with _told("a rank is gone, or late"):
            return [self._broadcast(text.encode(), rank).decode() for rank in range(self.size)]

    def broadcast(self, data: bytes | None, source: int) -> bytes:
        """The bytes of the rank `source`."""
        with _told(f"rank {source} is gone, or late"):
            return self._broadcast(data or b"", source)

    def _broadcast(self, data: bytes, source: int) -> bytes:
        is_sender = self.rank == source
        length = self._torch.tensor([len(data) if is_sender else 0], dtype=self._torch.int64)
        self._send(length, source)
        n_bytes = int(length.item())
        if not 0 <= n_bytes <= _MAX_BYTES:
            raise GroupError(f"rank {source} sends {n_bytes} bytes", "all ranks must run the same jitwarm")
        if not n_bytes:
            return b""
        content = self._torch.frombuffer(bytearray(data if is_sender else n_bytes), dtype=self._torch.uint8)
        self._send(content, source)
        return bytes(content.numpy())

    def _send(self, tensor: Any, source: int) -> None:
        options = self._distributed.BroadcastOptions()
        options.rootRank, options.rootTensor = source, 0
        self._gloo.broadcast([tensor], options).wait()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of torch about other ranks, in our words."""
    try:
        yield
    except GroupError:
        raise
    except Exception as exc:
        raise GroupError(f"{what}: {text_of(exc)}", "raise JITWARM_TUNE_TIMEOUT_S if a rank needs longer") from exc
