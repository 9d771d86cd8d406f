"""The runner: every key in order, each with a beginning, an end and a reason; one failure is one row."""

import contextlib

import pytest
from kits import Key

from jitwarm import Outcome, Skipped, Target, Unresolved, deadlines
from jitwarm.engine.plan import Plan, PlannedKernel, PlannedKey
from jitwarm.engine.runner import announce, run

KEYS = tuple(PlannedKey(digest, f'{{"n":"{digest}"}}', f"n={digest}", Key(digest)) for digest in ("d1", "d2", "d3"))
PLAN = Plan(
    Target("cuda", "90"),
    (
        PlannedKernel("p:a", "triton", "p 1.0", KEYS[:2], notes=("two keys",)),
        PlannedKernel("p:lost", None, "p 1.0", problem=(Outcome.UNRESOLVED, "needs the model")),
        PlannedKernel("q:b", None, "q 1.0", KEYS[2:]),
    ),
)


@pytest.fixture
def events():
    return []


@pytest.fixture
def emit(events):
    return lambda event, **fields: events.append((event, fields))


def ends(events):
    return {fields["digest"]: (fields["outcome"], fields["error"]) for event, fields in events if event == "key_end"}


def test_what_is_planned_is_announced_before_anything_is_done(events, emit):
    announce(PLAN, emit)
    assert [(event, fields["kernel"]) for event, fields in events] == [
        ("kernel_planned", "p:a"),
        ("key_planned", "p:a"),
        ("key_planned", "p:a"),
        ("kernel_planned", "p:lost"),
        ("kernel_unlisted", "p:lost"),
        ("kernel_planned", "q:b"),
        ("key_planned", "q:b"),
    ]
    assert events[0][1] == {
        "kernel": "p:a",
        "backend": "triton",
        "distribution": "p 1.0",
        "import_path": "",
        "notes": ["two keys"],
    }
    assert events[4][1] == {"kernel": "p:lost", "outcome": "unresolved", "error": "needs the model"}


def test_keys_are_made_one_after_the_other_in_the_order_of_the_plan(events, emit):
    run(PLAN.keys, lambda kernel, key: emit("compile", digest=key.digest) or Outcome.COMPILED, emit)
    names = ["key_start", "compile", "key_end"]
    assert [(event, fields["digest"]) for event, fields in events] == [
        (n, d) for d in ("d1", "d2", "d3") for n in names
    ]


def test_each_key_is_handed_over_with_its_kernel(events, emit):
    handed = []
    run(PLAN.keys, lambda kernel, key: handed.append((kernel.id, key.key)) or Outcome.LOADED, emit)
    assert handed == [("p:a", Key("d1")), ("p:a", Key("d2")), ("q:b", Key("d3"))]


@pytest.mark.parametrize(
    ("error", "outcome", "text"),
    [
        (ValueError("boom"), "failed", "ValueError: boom"),
        (Skipped("rank 1 only"), "skipped", "rank 1 only"),
        (
            Unresolved("tuning needs a device", "pin a config"),
            "unresolved",
            "tuning needs a device\n  hint: pin a config",
        ),
        (TimeoutError(), "failed", "TimeoutError"),
    ],
)
def test_a_key_that_raises_is_one_row_and_the_next_key_follows(events, emit, error, outcome, text):
    def compile_key(kernel, key):
        if key.digest == "d1":
            raise error
        return Outcome.COMPILED

    run(PLAN.keys, compile_key, emit)
    assert ends(events) == {"d1": (outcome, text), "d2": ("compiled", None), "d3": ("compiled", None)}


@pytest.mark.parametrize("answer", [None, "compiled", True])
def test_an_answer_that_is_no_outcome_is_a_failed_row_that_quotes_it(events, emit, answer):
    run(PLAN.keys, lambda kernel, key: answer, emit)
    outcome, error = ends(events)["d1"]
    assert outcome == "failed"
    assert repr(answer) in error


def test_every_outcome_is_written_by_its_documented_name(events, emit):
    for outcome in Outcome:
        run(Plan(PLAN.target, PLAN.kernels[2:]).keys, lambda kernel, key, outcome=outcome: outcome, emit)
    assert [fields["outcome"] for event, fields in events if event == "key_end"] == [
        "compiled", "loaded", "already_warm", "skipped", "failed", "timed_out", "unresolved",
    ]  # fmt: skip


def test_an_interrupt_is_not_a_row(events, emit):
    def interrupted(kernel, key):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(PLAN.keys, interrupted, emit)
    assert ends(events) == {}


def test_an_end_that_a_compiler_swallows_ends_the_run_all_the_same(monkeypatch):
    """Ctrl-C in the middle of a call from C++ into Python comes out as an error of the compiler's, or not at all."""
    monkeypatch.setattr(deadlines, "_SHUTDOWN", [])
    tried = []

    def compile_key(_, key):
        tried.append(key)
        with contextlib.suppress(SystemExit):
            deadlines.shut_down(SystemExit(143))
        return Outcome.COMPILED

    with pytest.raises(SystemExit, match="143"):
        run(PLAN.keys, compile_key, lambda *_, **__: None)
    assert len(tried) == 1
