"""What a worker's configuration says of its GPU. There is none here, so vLLM's platform is a stand-in."""

import sys
from types import SimpleNamespace

import pytest

from jitwarm import WarmupConfig
from jitwarm.integrations.vllm.asked import config_of
from jitwarm.settings import Asked, Settings


class StandInPlatform:
    names = ("NVIDIA H200", "NVIDIA H20")

    def is_cuda_alike(self):
        return True

    def get_device_name(self, device_id):
        return self.names[device_id]


@pytest.mark.parametrize(("local_rank", "expected"), [(0, "NVIDIA H200"), (1, "NVIDIA H20"), (2, "")])
def test_it_is_the_name_of_the_workers_own_gpu_and_empty_where_the_platform_fails(monkeypatch, local_rank, expected):
    monkeypatch.setitem(sys.modules, "vllm.platforms", SimpleNamespace(current_platform=StandInPlatform()))
    worker = SimpleNamespace(vllm_config=None, rank=local_rank, local_rank=local_rank)
    asked = Asked(WarmupConfig(), Settings())
    assert config_of(worker, asked).device_name == expected
    assert config_of(worker, asked, has_layers=False).device_name == expected
