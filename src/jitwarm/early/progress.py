"""Whether a builder comes forward, as others of its node see it: by the processor time of its processes."""

import threading
import time

from jitwarm.engine.descendants import born, processor_seconds

_LOOK_S = 1.0
# Of one processor. A process of the lowest priority has less than a fiftieth of one that others want.
_SHARE = 0.2


class Progress:
    """Looks at a process now and then. Asked often and by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = (0, 0)
        self._seconds = 0.0
        self._looked_at = 0.0
        self._works_at = 0.0

    def last(self, pid: int, began: int) -> float:
        """When a process, with its descendants, was last seen working, as `time.time()`.

        Args:
            pid: Of this node.
            began: What `born` says of it there.

        Returns:
            Now at the first look; 0.0 where it is not to be seen: it has ended, or counts its processes otherwise than we do.
        """
        with self._lock:
            now = time.monotonic()
            is_known = self._process == (pid, began)
            if is_known and now - self._looked_at < _LOOK_S:
                return self._works_at
            if born(pid) != began:
                return 0.0
            seconds = processor_seconds(pid)
            if not is_known or seconds - self._seconds >= _SHARE * (now - self._looked_at):
                self._works_at = time.time()
            self._process, self._seconds, self._looked_at = (pid, began), seconds, now
            return self._works_at
