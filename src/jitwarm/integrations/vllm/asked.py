"""What a worker was asked for: settings, configuration and place, read from vLLM's own objects. Imports little: a start waits."""

import dataclasses
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from jitwarm import environment
from jitwarm.contract.config import WarmupConfig
from jitwarm.environment import CACHE_VARIABLES, default_root
from jitwarm.settings import Asked, read_leniently


def asked_of(vllm_config: Any) -> tuple[Asked, list[str]]:
    """The settings, `--additional-config '{"jitwarm": {...}}'` over the environment; and a sentence for each that is wrong."""
    given = getattr(vllm_config, "additional_config", None)
    own = given.get("jitwarm", {}) if isinstance(given, dict) else {}
    is_table = isinstance(own, dict)
    asked, problems = read_leniently(own if is_table else {})
    if not is_table:
        problems.append(f'additional_config["jitwarm"] is {own!r}, no table: left out')
    run_id = asked.settings.run_id or str(getattr(vllm_config, "instance_id", ""))
    return dataclasses.replace(asked, settings=dataclasses.replace(asked.settings, run_id=run_id)), problems


def config_of(worker: Any, asked: Asked, *, has_layers: bool = True) -> WarmupConfig:
    """What a worker runs with."""
    return WarmupConfig.from_vllm(
        worker.vllm_config,
        worker.rank,
        asked.config.extra,
        device_name=_device_name(worker),
        has_layers=has_layers,
    )


def _device_name(worker: Any) -> str:
    """What vLLM's platform calls a GPU, which nobody may have touched yet; empty where it says nothing."""
    platform = getattr(sys.modules.get("vllm.platforms"), "current_platform", None)
    with suppress(Exception):
        if platform is not None and platform.is_cuda_alike():
            return str(platform.get_device_name(getattr(worker, "local_rank", 0)))
    return ""


def n_ranks_on_node(vllm_config: Any) -> int:
    """Workers that start together on this node."""
    parallel = getattr(vllm_config, "parallel_config", None)
    of_engine = int(getattr(parallel, "world_size", 1)) // max(1, int(getattr(parallel, "nnodes", 1) or 1))
    return max(1, of_engine) * max(1, int(getattr(parallel, "data_parallel_size_local", 1) or 1))


def forget_default_caches() -> None:
    """Take back what `register` set before settings were known: the caches are placed under the root that they name."""
    for variable, directory in CACHE_VARIABLES.items():
        if os.environ.get(variable) == str(Path(default_root()) / directory):
            del os.environ[variable]


def place_caches(asked: Asked) -> None:
    """Point the compilers' caches under the root that the settings name; a user's value wins."""
    forget_default_caches()
    if asked.settings.manage_caches:
        environment.place_caches(CACHE_VARIABLES, str(asked.settings.root))
