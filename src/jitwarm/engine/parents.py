"""Who forks the compile processes of a run: one mother, and a template for each plugin."""

import contextlib
import threading
from collections.abc import Mapping

from jitwarm.engine.jobs import Job
from jitwarm.engine.processes import Limits, Mother, Template, Worker
from jitwarm.errors import WorkersUnavailableError


class Parents:
    """The mother of a run, and her templates, each made when it is first needed. Safe to use in threads.

    Args:
        limits: Of each compile process.
        environ: Variables of the compile processes, over those of this one.
    """

    def __init__(self, limits: Limits, environ: Mapping[str, str]) -> None:
        self._limits = limits
        self._environ = environ
        self._lock = threading.Lock()
        self._is_closed = False
        self._mother: Mother | None = None
        self._templates: dict[str, Template | None] = {}  # by `Job.setup`; None where it did not come up

    def prestart(self, setup: Job) -> None:
        """Let the template of a job's plugin begin with its imports; whoever forks first waits for the rest.

        Raises:
            WorkersUnavailableError: No process can be started.
        """
        self._template(setup)

    def fork(self, setup: Job, timeout_s: float | None = None) -> Worker:
        """A worker of the plugin's template, else of the mother; of another mother, if she has died or dies at her start.

        Args:
            setup: Any job of the plugin.
            timeout_s: Longest to wait for the template's imports; None waits as long as for any process to start.

        Raises:
            WorkersUnavailableError: No process can be started, or all of them are ended.
        """
        template = None
        with contextlib.suppress(WorkersUnavailableError):
            if template := self._template(setup):
                return template.fork(*() if timeout_s is None else (timeout_s,))
        self._give_up(setup, template)
        for is_last in (False, True):
            with self._lock:
                mother = self._living_mother()
            try:
                return mother.fork()
            except WorkersUnavailableError:
                self._forget(mother)
                if is_last:
                    raise
        raise AssertionError

    def kill(self) -> None:
        """End them at once: who waits for their imports gives up, and nobody gets another."""
        self._is_closed = True
        if mother := self._mother:
            mother.kill()

    def close(self) -> None:
        """Let them end; nobody gets another."""
        self._is_closed = True
        if mother := self._mother:
            self._forget(mother)
            mother.close()

    def _template(self, setup: Job) -> Template | None:
        with self._lock:
            if setup.setup not in self._templates:
                self._templates[setup.setup] = self._living_mother().template(setup.to_json())
            return self._templates[setup.setup]

    def _give_up(self, setup: Job, template: Template | None) -> None:
        """Its workers are the mother's from now on; of another mother it may yet have a template."""
        with self._lock:
            if template and self._templates.get(setup.setup) is template:
                self._templates[setup.setup] = None

    def _living_mother(self) -> Mother:
        if self._is_closed:
            raise WorkersUnavailableError("the run is over")
        self._mother = self._mother or Mother(self._limits, self._environ)
        return self._mother

    def _forget(self, mother: Mother) -> None:
        """She has ended, or is about to, and her templates with her."""
        with self._lock:
            if self._mother is not mother:
                return  # whoever saw it first has begun anew
            for template in filter(None, self._templates.values()):
                template.close()
            self._mother = None
            self._templates = {}
