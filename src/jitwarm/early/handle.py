"""A worker's side of its early builder."""

import contextlib
import dataclasses
import hashlib
import json
import subprocess
import sys
from typing import Any, Self

from jitwarm.contract.config import WarmupConfig
from jitwarm.early.node import Node
from jitwarm.engine.processes import environment_of_child
from jitwarm.settings import Settings, read_config, read_settings

LOADED, AT_THE_SEAM = "loaded", "at the seam"
_END_S = 5.0
# Ranks that differ in these alone mostly have the same keys; what only another one has is built at its seam.
_POSITIONS = ("tp_rank", "dp_rank", "ep_rank")


@dataclasses.dataclass(frozen=True)
class Spec:
    """What an early builder is to build.

    Attributes:
        config: As far as it is known before there is a model.
        settings: Of the worker; budgets do not bind what nobody waits for.
        target: e.g. `cuda:90`.
        n_ranks: Processes on this node that load at the same time.
        start: Names this start of the server: what another one has built may have been of other kernels.
    """

    config: WarmupConfig
    settings: Settings
    target: str
    n_ranks: int = 1
    start: str = ""

    @property
    def configuration(self) -> str:
        """Names what ranks with the same keys have in common."""
        known = {name: value for name, value in dataclasses.asdict(self.config).items() if name not in _POSITIONS}
        return hashlib.sha256(json.dumps([self.target, known], sort_keys=True, default=str).encode()).hexdigest()

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """The same again.

        Raises:
            SettingsError: It is of another version.
        """
        known: dict[str, Any] = json.loads(line)
        config, settings = read_config(known["config"]), read_settings(known["settings"])
        return cls(config, settings, str(known["target"]), int(known["n_ranks"]), str(known["start"]))


class EarlyBuilder:
    """A process that builds keys into the store, while this one does something else. It ends when this object's process does.

    Args:
        spec: What to build.

    Raises:
        OSError: No process can be started.
    """

    def __init__(self, spec: Spec) -> None:
        self._node = Node(spec.settings.root)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "jitwarm.early"],
            env=environment_of_child(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the worker's, and its end is enough
            text=True,
        )
        self._tell(spec.to_json())

    @property
    def pid(self) -> int:
        """Of the builder."""
        return self._process.pid

    def loaded(self) -> None:
        """The processors are needed for loading no more."""
        self._tell(LOADED)

    def at_seam(self) -> None:
        """From now on this process builds what no builder has on its list: one that still waits for its turn may go."""
        self._tell(AT_THE_SEAM)

    def will_build(self, fingerprint: str) -> bool:
        """Whether a living builder of this node has a key on its list."""
        return self._node.will_build(fingerprint)

    def close(self) -> None:
        """End it, and its compile processes, whatever it does. Again is harmless."""
        with contextlib.suppress(OSError, ValueError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # it has ended
            if self._process.stdin:
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
