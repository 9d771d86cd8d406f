"""Keys made warm in this process, in a store that is not the user's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jitwarm.contract.config import WarmupConfig
from jitwarm.contract.target import Target
from jitwarm.engine.report import Report
from jitwarm.errors import WarmupFailedError
from jitwarm.session import Session
from jitwarm.settings import Asked, read, read_config


def warm_in(
    store: Path, kernels: str, config: WarmupConfig | Mapping[str, Any] | None = None, target: str | None = None
) -> Report:
    """As `jitwarm.warm`, with `store` in place of the user's store.

    Raises:
        WarmupFailedError: Something is not warm, with the list.

    Side effects: as of `jitwarm.warm`, and the compilers' caches are moved into `store`.
    """
    values = read_config(config) if isinstance(config, Mapping) else config or WarmupConfig()
    session = Session(Asked(values, read().settings), Target.parse(target) if target else None, root=store)
    try:
        report = session.run(session.plan(kernels, will_run=True))
    finally:
        session.finish()
    if not report.is_complete():
        cold = [f"{row.label} {row.outcome}: {row.error}" for row in report.rows if row.error]
        raise WarmupFailedError("not everything is warm", "\n".join(cold))
    return report
