"""The report is a function of the events, and its JSON is what is documented."""

import json

import pytest
from kits import FourMembers, Key, Plugin

from jitwarm import Outcome, Report, Skipped, hookimpl
from jitwarm.engine.report import KernelReport, ReportBuilder, Row

DOCUMENT = {
    *("target", "n_keys", "outcomes", "kernels"),
    *("refused", "policy_errors", "left_out", "n_compiles", "on_device", "root", "seconds"),
}
KERNEL = {*("id", "backend", "distribution", "keys"), "notes"}
KEY = {*("digest", "key", "outcome", "seconds", "error", "repro"), "label"}


class Broken:
    @hookimpl
    def jitwarm_kernels(self):
        raise RuntimeError("no driver")

    @hookimpl
    def jitwarm_compile(self):
        raise AssertionError("a refused plugin is not asked")


class RaisingPolicy:
    @hookimpl
    def jitwarm_compile(self):
        raise ConnectionError("unreachable")


@pytest.fixture
def session(make_session):
    """A run with something of everything: compiled, failed, skipped, unlisted, refused, and a policy that raises."""
    good = FourMembers(Key(1), Key(2), Key(3), name="good", backend="workshop")
    build = good.compile

    def compile_key(key):
        if key.n == 2:
            raise ValueError("boom [/bold] ü")
        if key.n == 3:
            raise Skipped("not on this rank")
        build(key)

    good.compile = compile_key
    unlisted = FourMembers(name="unlisted", backend="workshop")
    unlisted.get_warmup_keys = lambda config: config.require_model()
    made = make_session({"site": Plugin(good, unlisted), "broken": Broken(), "policy": RaisingPolicy()})
    made.run(made.plan())
    return made


def events_of(session):
    (file,) = session.root.glob("events/*/*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def report_of(*outcomes, **fields):
    """A report with one row for each outcome."""
    rows = [Row(f"d{i}", "{}", "n=1", outcome) for i, outcome in enumerate(outcomes)]
    return Report(kernels={"p:k": KernelReport("p:k", None, "p 1.0", rows)}, **fields)


def test_the_report_of_the_log_is_the_report_of_the_run(session):
    assert ReportBuilder.fold(events_of(session)) == session.report


def test_a_log_that_ends_in_the_middle_gives_the_report_up_to_there(session):
    """A killed process leaves whole lines behind; the key that it was at is planned and has no outcome."""
    events = events_of(session)
    last = next(i for i, event in enumerate(events) if event["event"] == "key_end" and event["outcome"] == "failed")
    report = ReportBuilder.fold(events[:last])
    assert [row.outcome for row in report.kernels["site:good"].rows] == ["compiled", None, None]
    assert not report.is_complete()


def test_events_of_a_newer_version_change_nothing(session):
    events = [*events_of(session), {"event": "unheard_of", "kernel": "site:good"}]
    assert ReportBuilder.fold(events) == session.report


def test_every_event_says_when_where_and_in_which_run(session):
    for event in events_of(session):
        assert {"v", "t_ns", "mono_ns", "run", "pid", "event"} <= event.keys()
        assert event["run"] == session.log.run


def test_the_document_has_the_documented_shape_and_nothing_else(session):
    document = json.loads(json.dumps(session.report.to_json()))
    assert document.keys() == DOCUMENT
    assert all(kernel.keys() == KERNEL for kernel in document["kernels"])
    assert all(key.keys() == KEY for kernel in document["kernels"] for key in kernel["keys"])


@pytest.mark.parametrize(
    ("outcome", "digest", "command"),
    [
        ("failed", "0123456789abcdef", "jitwarm repro 0123456789ab --root '/a store'"),
        ("timed_out", "0123456789abcdef", "jitwarm repro 0123456789ab --root '/a store'"),
        ("failed", None, ""),
        ("unresolved", "0123456789abcdef", ""),
        ("skipped", "0123456789abcdef", ""),
        ("compiled", "0123456789abcdef", ""),
    ],
)
def test_what_a_compiler_failed_at_has_a_command_that_shows_it(outcome, digest, command):
    assert Report(root="/a store").repro(Row(digest, "{}", "n=1", outcome)) == command


def test_the_document_says_what_happened(session):
    document = session.report.to_json()
    assert (document["target"], document["n_keys"], document["n_compiles"]) == ("cuda:90", 3, 1)
    assert document["outcomes"] == {"compiled": 1, "skipped": 1, "failed": 1, "unresolved": 1}
    good, unlisted = document["kernels"]
    assert (good["id"], good["backend"], good["distribution"]) == ("site:good", "workshop", "site 1.0")
    assert [(key["outcome"], key["error"]) for key in good["keys"]] == [
        ("compiled", None),
        ("failed", "ValueError: boom [/bold] ü"),
        ("skipped", "not on this rank"),
    ]
    assert [len(key["digest"]) for key in good["keys"]] == [64] * 3
    assert [(key["digest"], key["outcome"]) for key in unlisted["keys"]] == [(None, "unresolved")]
    assert document["refused"] == [
        {"plugin": "broken", "distribution": "broken 1.0", "reason": "RuntimeError: no driver"}
    ]
    assert {error["plugin"] for error in document["policy_errors"]} == {"policy"}


def test_outcomes_that_did_not_occur_are_left_out_and_the_others_are_in_documented_order():
    assert list(report_of("unresolved", "loaded", "compiled", "loaded").outcomes.items()) == [
        ("compiled", 1),
        ("loaded", 2),
        ("unresolved", 1),
    ]


@pytest.mark.parametrize("outcome", Outcome)
def test_one_outcome_decides_whether_a_run_is_complete(outcome):
    report = report_of("compiled", outcome.value)
    assert report.is_complete() == (outcome.is_warm or outcome is Outcome.SKIPPED)
    assert report.is_complete(strict=True) == outcome.is_warm


def test_a_planned_key_without_an_outcome_is_not_warm():
    assert not report_of("compiled", None).is_complete()


def test_an_empty_plan_is_not_complete():
    assert not Report().is_complete()
    assert not report_of().is_complete()


def test_refused_plugins_and_raising_policies_count_where_it_is_strict():
    for fields in ({"refused": [{"plugin": "p"}]}, {"policy_errors": [{"plugin": "p"}]}):
        report = report_of("compiled", **fields)
        assert report.is_complete()
        assert not report.is_complete(strict=True)
