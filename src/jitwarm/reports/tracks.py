"""Who did what and when: phases and loads of the processes, builds of their compile processes and hosts."""

from jitwarm.reports.reading import Event
from jitwarm.reports.start import Process, Span, Start, Worker

_PLANNING = frozenset({"kernel_planned", "key_planned", "kernel_unlisted", "key_regions"})
# A process, and what was begun in it.
_Name = tuple[str, str, str]


class Tracks:
    """Collects the spans of one start.

    Args:
        start: Its keys are known before the first event is taken.
        processes: Those that planned keys, by `Process.id`; every other one is a compile process.
    """

    def __init__(self, start: Start, processes: dict[str, Process]) -> None:
        self._start = start
        self._processes = processes
        self._workers: dict[str, Worker] = {}
        self._digests = {(key.kernel, key.text): key.digest for key in start.keys.values()}
        self._begun: dict[_Name, Span] = {}
        self._asked_s: dict[_Name, float] = {}
        self._compiles: dict[str, list[Span]] = {}
        self._planned_s: dict[str, float] = {}
        self._last_s: dict[str, float] = {}

    def take(self, owner: str, event: Event, at_s: float) -> None:
        """Take one event of a process into account.

        Raises:
            KeyError: It lacks a field.
        """
        self._last_s[owner] = max(at_s, self._last_s.get(owner, 0.0))
        process = self._processes.get(owner)
        if process is None:
            self._take_of_worker(owner, event, at_s)
        elif "phase" in event or event["event"] in ("background_start", "background_end"):
            self._take_phase(process, event, at_s)
        else:
            self._take_of_process(process, event, at_s)

    def finish(self) -> None:
        """End what nobody ended, derive what nobody wrote, and hand the workers to the start."""
        for worker in self._workers.values():
            self._finish_worker(worker)
        for (owner, _, _), span in self._begun.items():
            known_s = self._last_s[owner] if owner in self._processes else self._workers[owner].end_s
            span.end_s = max(span.start_s, known_s)
        for process in self._processes.values():
            self._finish_process(process)
        self._start.workers = sorted(self._workers.values(), key=lambda worker: (worker.parent, worker.start_s))

    def _take_phase(self, process: Process, event: Event, at_s: float) -> None:
        name = event.get("phase") or "background"
        if event["event"].endswith("_start"):
            process.phases.append(self._begin((process.id, "phase", name), Span(at_s, at_s, name)))
        else:
            self._end((process.id, "phase", name), at_s)

    def _take_of_process(self, process: Process, event: Event, at_s: float) -> None:
        match event["event"]:
            case "key_start":
                name = (event["kernel"], event["digest"])
                process.loads.append(self._begin((process.id, *name), Span(at_s, at_s, name[0], name)))
            case "key_end":
                self._end((process.id, event["kernel"], event["digest"]), at_s, event["outcome"])
            case "run_end":
                process.end_s, process.is_complete = at_s, True
            case "child_start":
                worker = self._worker(f"{process.host}:{event['child']}", at_s)
                worker.parent, worker.backend = process.id, event["backend"] or ""
            case "child_end":
                worker = self._worker(f"{process.host}:{event['child']}", at_s)
                worker.end_s, worker.why_ended = at_s, event["why"] or ""
            case "build_start":
                self._asked_s[process.id, event["kernel"], event["key"]] = at_s
            case "built_on_host":
                asked_s = self._asked_s.get((process.id, event["kernel"], event["key"]), at_s)
                worker = self._worker(f"{event['host']} for {process.id}", asked_s)
                worker.parent, worker.is_host = process.id, True
                worker.builds.append(self._build(event, asked_s, at_s, "built"))
            case name if name in _PLANNING:
                self._planned_s[process.id] = at_s
            case _:
                pass

    def _take_of_worker(self, owner: str, event: Event, at_s: float) -> None:
        match event["event"]:
            case "job_start":
                span = self._begin((owner, event["kernel"], event["key"]), self._build(event, at_s, at_s))
                self._worker(owner, at_s).builds.append(span)
            case "job_end":
                begun = self._end((owner, event["kernel"], event["key"]), at_s, event["status"] or "")
                if begun:  # the job began with the plugin's import, before there was a log to say so
                    begun.start_s = max(min(begun.start_s, at_s - event["seconds"]), 0.0)
            case "compile":
                self._worker(owner, at_s)
                span = self._build(event, max(at_s - event["seconds"], 0.0), at_s, "built")
                self._compiles.setdefault(owner, []).append(span)
            case _:
                pass

    def _worker(self, name: str, at_s: float) -> Worker:
        worker = self._workers.setdefault(name, Worker(name, start_s=at_s))
        worker.start_s = min(worker.start_s, at_s)
        return worker

    def _build(self, event: Event, start_s: float, end_s: float, outcome: str = "") -> Span:
        kernel, text = str(event["kernel"]), str(event["key"])
        return Span(start_s, end_s, kernel, (kernel, self._digests.get((kernel, text), text)), outcome)

    def _begin(self, name: _Name, span: Span) -> Span:
        self._begun[name] = span
        return span

    def _end(self, name: _Name, at_s: float, outcome: str = "") -> Span | None:
        span = self._begun.pop(name, None)
        if span:
            span.end_s, span.outcome = max(at_s, span.start_s), outcome
        return span

    def _finish_worker(self, worker: Worker) -> None:
        """Logs of versions that did not say when a job began and ended have the compiles alone."""
        worker.builds = sorted(worker.builds or self._compiles.get(worker.id, []), key=lambda span: span.start_s)
        spans = worker.builds
        worker.end_s = max([worker.end_s or self._last_s.get(worker.id, worker.start_s), *(s.end_s for s in spans)])
        worker.start_s = min([worker.start_s, *(span.start_s for span in spans)])
        for span in spans:
            if span.key in self._start.keys:
                self._start.keys[span.key].worker = worker.id

    def _finish_process(self, process: Process) -> None:
        """A command has no phases of its own; what it did says them."""
        last_s = self._last_s[process.id]
        process.end_s = process.end_s or max([process.start_s, *(span.end_s for span in process.loads)])
        if not process.phases:
            planned_s = self._planned_s.get(process.id, last_s)
            process.phases.append(Span(process.start_s, planned_s, "plan"))
            if process.end_s > planned_s:
                process.phases.append(Span(planned_s, process.end_s, "warmup"))
