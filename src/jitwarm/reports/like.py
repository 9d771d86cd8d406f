"""The configuration of a start that has been, to build for the next one like it."""

import json
from pathlib import Path
from typing import Any

from jitwarm.errors import UsageError
from jitwarm.reports.reading import read_runs

_WRITE = "name a run of an event log, or a JSON file with the fields of WarmupConfig"


def config_like(name: str, root: Path) -> dict[str, Any]:
    """The configuration that a start wrote down; of several ranks, the first one's.

    Args:
        name: A JSON file with the configuration, what `jitwarm report --json` printed, or a run (see `reading.read_runs`).
        root: The store in which a run's name is looked up.

    Raises:
        UsageError: There is none.
    """
    path = Path(name)
    if path.suffix == ".json" and path.is_file():
        return _of_file(path)
    (logs, *_) = read_runs([name], root)
    configs = [
        event["config"] for log in logs for event in log.events if event["event"] == "config" and "config" in event
    ]
    if not configs:
        raise UsageError(f"the run {name} has no configuration: it ended before it read one", _WRITE)
    ranked = sorted(configs, key=lambda config: [config.get(rank, 0) for rank in ("dp_rank", "pp_rank", "tp_rank")])
    whole = [config for config in ranked if config.get("has_layers", True)]  # an early builder knows less
    return _here((whole or ranked)[0])


def _of_file(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise UsageError(f"cannot read {path}: {exc}", _WRITE) from exc
    config = found.get("config", found) if isinstance(found, dict) else None
    if not isinstance(config, dict):
        raise UsageError(f"{path} holds no configuration", _WRITE)
    return _here(config)


def _here(config: dict[str, Any]) -> dict[str, Any]:
    """Without the path of the model, where that is another machine's: the layers are written down as well."""
    model = config.get("model")
    is_elsewhere = isinstance(model, str) and not Path(model).exists()
    return {name: value for name, value in config.items() if not (name == "model" and is_elsewhere)}
