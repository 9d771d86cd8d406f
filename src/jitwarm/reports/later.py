"""What the monitor saw after the warm-up: compiles, reloads, first uses. The same thing in several ranks is one."""

from typing import Any

from jitwarm.reports.reading import Event
from jitwarm.reports.start import ExecutionRun, Late, Start, Unexpected

_WORST_FIRST = ("failed", "done", "not_run")


class Later:
    """Collects the monitor's events of one start.

    Args:
        start: Its keys are known before the first event is taken.
    """

    def __init__(self, start: Start) -> None:
        self._start = start
        self._compiled: dict[Any, Unexpected] = {}
        self._late: dict[Any, Late] = {}

    def take(self, process: str, event: Event, at_s: float) -> None:
        """Take one event into account; others change nothing.

        Raises:
            KeyError: It lacks a field.
        """
        match event["event"]:
            case "monitor_armed":
                self._start.watched_by[event.get("by") or "vllm"] = event.get("mode") or ""
            case "unexpected_compile":
                self._take_compile(self._start.unexpected, process, event, at_s)
            case "undeclared_compile":
                self._take_compile(self._start.undeclared, process, event, at_s)
            case "execution_run":
                self._take_execution(event)
            case "reloaded":
                self._take_late(self._start.reloads, event)
            case "module_loaded":
                self._take_late(self._start.modules, event)
            case "key_used":
                self._start.keys[event["kernel"], event["digest"]].is_used = True
            case "uses_unknown":
                self._start.uses_unknown.update(event["kernels"])
            case _:
                pass

    def _take_compile(self, place: list[Unexpected], process: str, event: Event, at_s: float) -> None:
        texts: dict[str, Any] = {
            name: event.get(name) or ""
            for name in ("kernel", "digest", "key", "label", "nearest", "why", "line", "site")
        }
        wanted = texts["digest"] or texts["key"] or texts["label"]
        during = event.get("during") or ""
        name = (during, event["backend"], event["what"], event["function"], texts["kernel"], wanted)
        found = self._compiled.get(name)
        if found is None:
            found = self._compiled[name] = Unexpected(
                backend=event["backend"] or "",
                what=event["what"] or "compile",
                function=event["function"] or "",
                differences=event.get("differences") or [],
                first_s=at_s,
                during=during,
                **texts,
            )
            place.append(found)
        found.n += 1
        found.seconds += event.get("seconds") or 0.0
        found.first_s = min(found.first_s, at_s)
        found.at_s.append((process, at_s))
        if process not in found.processes:
            found.processes.append(process)

    def _take_execution(self, event: Event) -> None:
        why = event.get("error") or event.get("why") or ""
        found = ExecutionRun(
            event["status"], event.get("by") or "", event.get("n") or 0, event.get("seconds") or 0.0, str(why)
        )
        known = self._start.execution
        if known is None or _WORST_FIRST.index(found.status) < _WORST_FIRST.index(known.status):
            self._start.execution = found

    def _take_late(self, place: list[Late], event: Event) -> None:
        texts: dict[str, Any] = {
            name: event.get(name) or "" for name in ("backend", "function", "kernel", "label", "site")
        }
        name = (event["event"], *texts.values())
        if name not in self._late:
            self._late[name] = Late(**texts)
            place.append(self._late[name])
        self._late[name].n += 1
        self._late[name].seconds += event.get("seconds") or 0.0
