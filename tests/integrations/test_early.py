"""Which GPU is built for before anybody has touched it."""

import sys
from types import SimpleNamespace

import pytest

from jitwarm.integrations.vllm.early import _target_of


class StandInPlatform:
    """As vLLM's platforms answer on a machine with such a GPU."""

    def __init__(self, *, cuda=None, is_rocm=False):
        self._cuda, self._is_rocm = cuda, is_rocm

    def is_cuda(self):
        return self._cuda is not None

    def is_rocm(self):
        return self._is_rocm

    def get_device_capability(self, device_id):
        return self._cuda[device_id]


def capability(major, minor):
    return SimpleNamespace(major=major, minor=minor)


@pytest.mark.parametrize(
    ("platform", "architecture", "target"),
    [
        (
            StandInPlatform(cuda=[capability(9, 0), capability(12, 0)]),
            "",
            "cuda:120",
        ),  # the worker's own, not the first
        (StandInPlatform(cuda=[None, None]), "", ""),
        (StandInPlatform(is_rocm=True), "gfx942", "hip:gfx942"),
        (StandInPlatform(is_rocm=True), "gfx90a:sramecc+:xnack-", "hip:gfx90a"),
        (StandInPlatform(is_rocm=True), "", ""),
        (StandInPlatform(), "", ""),
    ],
)
def test_the_target_is_what_vllms_platform_says(monkeypatch, platform, architecture, target):
    monkeypatch.setitem(sys.modules, "vllm.platforms", SimpleNamespace(current_platform=platform))
    monkeypatch.setitem(sys.modules, "vllm.platforms.rocm", SimpleNamespace(_GCN_ARCH=architecture))
    assert _target_of(SimpleNamespace(local_rank=1)) == target
