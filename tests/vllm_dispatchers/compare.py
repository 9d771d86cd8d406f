"""Run in a process of its own: every in-tree kernel of vLLM with a dispatcher, its keys by vLLM's tracer and by jitwarm's.

    CUDA_VISIBLE_DEVICES="" VLLM_TARGET_DEVICE=cpu \\
        python tests/vllm_dispatchers/compare.py WHEEL_DIRECTORY IMPORTS_DIRECTORY [--markdown]

Each kernel is asked for its warm-up keys with made-up configurations (`declared.py`). What it then hands to vLLM's tracer, the
dispatch, the inputs and the predicate, is handed to jitwarm's, too. The modules are imported as on a machine without a GPU;
afterwards the platform says in turn that it is a Blackwell and a Hopper GPU, because kernels ask for it.
"""

import argparse
import ast
import importlib
import inspect
import json
import logging
import math
import sys
import time
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import declared

import jitwarm
from jitwarm.errors import DomainError


def found(directory: Path) -> dict[str, list[str]]:
    """Module -> names of the kernel classes in it that define `dispatch`, by reading the source."""
    kernels: dict[str, list[str]] = {}
    for path in sorted((directory / "vllm").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "JitKernel[" not in text or path.name.startswith("jit_warmup"):
            continue
        module = ".".join(path.relative_to(directory).with_suffix("").parts)
        for node in ast.walk(ast.parse(text)):
            owner = isinstance(node, ast.ClassDef) and any("JitKernel[" in ast.unparse(base) for base in node.bases)
            if owner and any(isinstance(part, ast.FunctionDef) and part.name == "dispatch" for part in node.body):
                kernels.setdefault(module, []).append(node.name)
    return kernels


def stand_ins() -> None:
    """For compiled extensions that no dispatcher uses: an empty module, and names that CUDA's branch would have imported."""
    for name in [name for name in sys.modules if name.startswith("vllm.vllm_flash_attn")]:
        del sys.modules[name]  # what is left of a failed import remembers that there was no extension
    sys.modules["vllm.vllm_flash_attn._vllm_fa2_C"] = types.ModuleType("vllm.vllm_flash_attn._vllm_fa2_C")
    flash = importlib.import_module("vllm.v1.attention.backends.fa_utils")
    for name in ("compile_flash_attn_varlen_func_from_specs", "flash_attn_varlen_func", "get_scheduler_metadata"):
        if not hasattr(flash, name):
            setattr(flash, name, None)


def imported(names: Iterable[str]) -> dict[str, types.ModuleType | str]:
    """The modules, or why one cannot be imported; `STANDING_IN` names those that needed `stand_ins`."""
    modules: dict[str, types.ModuleType | str] = {}
    for attempt in (lambda: None, stand_ins):
        attempt()
        for name in names:
            if isinstance(modules.get(name), types.ModuleType):
                continue
            try:
                modules[name] = importlib.import_module(name)
            except Exception as exc:  # noqa: BLE001 - whatever it is belongs into the table
                modules[name] = f"{type(exc).__name__}: {exc}"
                STANDING_IN.add(name)
    return modules


STANDING_IN: set[str] = set()


class Recorder:
    """Takes the place of vLLM's `_trace_dispatch`: passes every call on and keeps it."""

    def __init__(self, tracer: types.ModuleType) -> None:
        self.calls: list[tuple[Any, ...]] = []
        original = tracer.VllmJitKernel._trace_dispatch

        def recorded(kernel: Any, dispatch: Any) -> Any:
            traced = original(kernel, dispatch)

            def call(*groups: Any, _when: Any = None, **inputs: Any) -> list[Any]:
                start = time.perf_counter()
                keys = traced(*groups, _when=_when, **inputs)
                spent = time.perf_counter() - start
                axes = [len(group.rows) for group in groups]
                axes += [len(tracer._expand_warmup_values(value)) for value in inputs.values()]
                self.calls.append((kernel, dispatch, groups, _when, inputs, keys, spent, math.prod(axes)))
                return keys

            return call

        tracer.VllmJitKernel._trace_dispatch = recorded


class Translation:
    """A domain in vLLM's terms, in jitwarm's; `remarks` says where it could not be taken as it was."""

    def __init__(self, tracer: types.ModuleType, kernel: Any, dispatch: Any, when: Any) -> None:
        self._tracer = tracer
        self._parameters = inspect.signature(dispatch).parameters
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in self._parameters.values())
        self._asked = set(inspect.signature(when).parameters) if when else set()
        self._fields = {field.name for field in kernel.CompileKey.__dataclass_fields__.values()}
        self._when = when
        self.remarks: list[str] = []

    def domain(self, groups: Any, inputs: dict[str, Any]) -> tuple[list[Any], dict[str, Any], Any]:
        """Positional arguments, named inputs and predicate for `jitwarm.trace`."""
        when = self._when
        rows = [list(group.rows) for group in groups]
        # A predicate's own input would be passed on by a dispatch with **fields: such rows are judged here.
        own = {n for n in self._asked if self._takes_all and n not in self._parameters and n not in self._fields}
        if own:
            assert own == self._asked, "the predicate needs other inputs, too"
            rows = [[row for row in group if when(**{n: row[n] for n in own})] for group in rows]
            self.remarks.append("rows judged by `when` beforehand")
            when = None
        kept = self._kept(own)
        named = {name: self._space(value) for name, value in inputs.items() if kept(name)}
        declared_rows = []
        for group in rows:
            cut = [{n: v for n, v in row.items() if kept(n)} for row in group]
            if cut and cut[0]:
                declared_rows.append(jitwarm.rows(*cut))
        given = set(named).union(*(row for group in declared_rows for row in group.mappings))
        for name, parameter in self._parameters.items():
            plain = parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            if plain and parameter.default is parameter.empty and name not in given:
                named[name] = None
                self.remarks.append(f"`{name}`, which dispatch overwrites, given as None")
        return declared_rows, named, when

    def _kept(self, own: set[str]) -> Any:
        accepted = set(self._parameters) | self._asked
        return lambda name: name not in own and (self._takes_all or name in accepted)

    def _space(self, value: Any) -> Any:
        if isinstance(value, self._tracer.WarmupIntRange) and value.advance is None:
            return jitwarm.IntRange(value.start, value.stop, value.step)
        if isinstance(value, self._tracer.WarmupIntRange | self._tracer.WarmupChoices | list | tuple):
            return jitwarm.Choices(*self._tracer._expand_warmup_values(value))
        return value


def compared(tracer: types.ModuleType, call: tuple[Any, ...]) -> dict[str, Any]:
    """One call of vLLM's tracer against one of ours."""
    kernel, dispatch, groups, when, inputs, theirs, their_seconds, n_points = call
    translation = Translation(tracer, kernel, dispatch, when)
    result: dict[str, Any] = {"theirs": len(theirs), "their_ms": their_seconds * 1e3, "points": n_points, "notes": []}
    expected = [jitwarm.encode_key(key) for key in theirs]
    start = time.perf_counter()
    try:
        rows, named, predicate = translation.domain(groups, inputs)
        start = time.perf_counter()
        trace = jitwarm.trace(dispatch, *rows, when=predicate, **named)
        ours, result["notes"] = [jitwarm.encode_key(key) for key in trace.keys], list(trace.notes)
    except DomainError as exc:
        ours = []  # an empty domain is an error here, and no keys there
        if theirs:
            result["error"] = str(exc)
    except Exception as exc:  # noqa: BLE001 - whatever it is belongs into the table
        result["error"] = f"{type(exc).__name__}: {exc}"
        ours = []
    result |= {"ours": len(ours), "our_ms": (time.perf_counter() - start) * 1e3, "remarks": translation.remarks}
    result |= {"same": set(ours) == set(expected) and "error" not in result, "same_order": ours == expected}
    result["keys"] = expected
    if not result["same"]:
        result["missing"] = [key for key in expected if key not in ours][:3]
        result["extra"] = [key for key in ours if key not in expected][:3]
    return result


def replay(kernel: Any, tracer: types.ModuleType, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """For a kernel that loops over `dispatch` itself: the points that it visits, as coupled rows for the tracers."""
    points: list[dict[str, Any]] = []
    dispatch = kernel.dispatch
    kernel.dispatch = lambda **point: points.append(point) or dispatch(**point)
    try:
        kernel.get_warmup_keys(*arguments, **named)
    finally:
        del kernel.dispatch
    if points:
        kernel._trace_dispatch(kernel.dispatch)(tracer.zip_inputs(*points))


def kernel_row(module: types.ModuleType, name: str, tracer: types.ModuleType, recorder: Recorder) -> dict[str, Any]:
    """All calls of one kernel, over all configurations."""
    kernel = getattr(module, name)()
    calls: list[dict[str, Any]] = []
    row: dict[str, Any] = {"calls": calls}
    for device, arguments, named in declared.calls(name):
        recorder.calls.clear()
        with declared.platform(device):
            try:
                kernel.get_warmup_keys(*arguments, **named)
                if not recorder.calls:
                    replay(kernel, tracer, arguments, named)
            except Exception as exc:  # noqa: BLE001 - a configuration of ours that it does not like
                row["unasked"] = f"{type(exc).__name__}: {exc}"
            calls += [compared(tracer, call) for call in recorder.calls]
    return row


def main() -> int:
    """Compare all, and print the rows as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", type=Path)
    parser.add_argument("imports", type=Path)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    sys.path.insert(0, str(options.files))
    sys.path.append(str(options.imports))
    logging.disable(logging.ERROR)

    kernels = found(options.files)
    tracer = importlib.import_module("vllm.model_executor.warmup.jit_warmup")
    recorder = Recorder(tracer)
    modules = imported(kernels)  # all of them before the platform is changed
    rows = []
    for module, names in kernels.items():
        for name in names:
            row: dict[str, Any] = {"kernel": name, "module": module, "calls": [], "stand_in": module in STANDING_IN}
            loaded = modules[module]
            if isinstance(loaded, str):
                row["not_imported"] = loaded
            else:
                row |= kernel_row(loaded, name, tracer, recorder)
            rows.append(row)
    sys.stdout.write(f"{markdown(rows) if options.markdown else json.dumps(rows)}\n")
    return 0


def counts(rows: list[dict[str, Any]]) -> str:
    """What was found, imported and compared."""
    calls = [call for row in rows for call in row["calls"]]
    imports = [row for row in rows if "not_imported" not in row]
    asked = [row for row in rows if row["calls"]]
    equal = [row for row in asked if all(call["same"] for call in row["calls"])]
    stand_in = sum(row["stand_in"] for row in imports)
    return (
        f"{len(rows)} kernels found, {len(imports)} imported ({stand_in} with a stand-in), {len(asked)} compared, "
        f"{len(equal)} equal, {len(asked) - len(equal)} different. "
        f"{len(calls)} domains with {sum(call['points'] for call in calls):,} points: "
        f"{sum(call['same'] for call in calls)} equal, {sum(call['same_order'] for call in calls)} in the same order. "
        f"vLLM {sum(call['their_ms'] for call in calls):,.0f} ms, jitwarm {sum(call['our_ms'] for call in calls):,.0f} ms."
    )


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of the documentation."""
    lines = [
        "| kernel | module, below `vllm.` | domains | points | keys | same | remark |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        calls = row["calls"]
        keys = {key for call in calls for key in call["keys"]}
        same = "-" if not calls else "yes" if all(call["same"] for call in calls) else "no"
        remarks = ["a compiled extension stood in for"] if row["stand_in"] else []
        remarks += [remark for call in calls for remark in call["remarks"]]
        remarks += [note for call in calls for note in call["notes"] if "outside" not in note]
        remarks += [row[name].splitlines()[0] for name in ("not_imported", "unasked") if name in row]
        remarks += [call["error"].splitlines()[0] for call in calls if "error" in call]
        said = "; ".join(dict.fromkeys(remarks))
        module = row["module"].removeprefix("vllm.")
        points = sum(call["points"] for call in calls)
        lines.append(f"| `{row['kernel']}` | `{module}` | {len(calls)} | {points:,} | {len(keys)} | {same} | {said} |")
    return "\n".join([counts(rows), "", *lines])


if __name__ == "__main__":
    sys.exit(main())
