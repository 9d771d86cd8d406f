"""What a run builds for: what is asked for, else the GPU of this machine."""

import os
from collections.abc import Sequence
from pathlib import Path

from jitwarm.contract.backend import Backend
from jitwarm.contract.target import Target
from jitwarm.errors import TargetError
from jitwarm.settings import Settings


def may_have_device() -> bool:
    """Whether it is worth importing a compiler to ask for a GPU."""
    blind = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return not blind and (Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists())


def target_of(asked: Target | None, settings: Settings, backends: Sequence[Backend]) -> Target:
    """What is asked for, else the settings' target, else the GPU of this machine.

    Raises:
        TargetError: There is none of these, or this process's GPU is another one.
    """
    wanted = asked or (Target.parse(settings.target) if settings.target else None)
    device = None
    for backend in backends if may_have_device() else ():
        device = device or backend.device_target()
    if wanted and device and wanted != device:
        raise TargetError(
            f"this machine's GPU is {device}: a process that sees it builds for it alone, not for {wanted}",
            "use `jitwarm bake --target`, which hides the GPU from itself",
        )
    if target := wanted or device:
        return target
    raise TargetError(
        "no target: this machine has no GPU to ask", "name one: --target cuda:90, or JITWARM_TARGET=cuda:90"
    )
