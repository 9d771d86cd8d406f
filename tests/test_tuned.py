"""Tuned artifacts in one process: listed by plugins, shown as rows, found again by the next run."""

import sys

import kits
import pytest

from jitwarm import Target
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings

PACKAGE = """
from jitwarm import NeedsModel, TunedArtifact, hookimpl
from kits import FourMembers, Key


class Result(TunedArtifact):
    name = "result"
    needs_device = False
    log = []

    def fingerprint(self, config):
        return config.dtype

    def tune(self, config):
        self.log.append("tuned")
        return b"the best"

    def apply(self, data):
        self.log.append(data.decode())


class OfTheModel(Result):
    name = "of_the_model"

    def fingerprint(self, config):
        return str(config.require_runner())


class OnDevice(Result):
    name = "on_device"
    needs_device = True


@hookimpl
def jitwarm_kernels():
    return [FourMembers(Key(1))]


@hookimpl
def jitwarm_tuned_artifacts():
    return ARTIFACTS
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a session over a package that lists these artifacts, given as source."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.syspath_prepend(tmp_path / "site")

    def run(artifacts, glob="*", **settings):
        module = f"tuned_{abs(hash(artifacts))}"
        if not (tmp_path / "site" / f"{module}.py").exists():
            sys.modules.pop(module, None)
            kits.install(tmp_path / "site", module, PACKAGE.replace("ARTIFACTS", artifacts), plugin="acme")
        asked = Asked(settings=Settings(plugins=("acme",), isolate=False, manage_caches=False, **settings))
        session = Session(asked, Target("cuda", "90"), root=tmp_path / "store")
        report = session.run(session.plan(glob))
        session.finish()
        return report, __import__(module).Result.log

    return run


def rows(report):
    return {name: [(row.outcome, row.error) for row in kernel.rows] for name, kernel in report.kernels.items()}


def test_it_is_tuned_once_and_found_by_the_next_run(run):
    report, log = run("[Result()]")
    assert rows(report)["acme:result"] == [("compiled", None)]
    assert report.is_complete()
    report, log = run("[Result()]")
    assert rows(report)["acme:result"] == [("loaded", None)]
    assert log == ["tuned", "the best", "the best"]


def test_without_a_device_and_without_the_model_the_rows_say_so(run):
    report, log = run("[OnDevice(), OfTheModel()]")
    [(outcome, why)] = rows(report)["acme:on_device"]
    assert (outcome, why) == ("unresolved", "tuning needs a device")
    [(outcome, why)] = rows(report)["acme:of_the_model"]
    assert outcome == "unresolved"
    assert "needs the model" in why
    assert not report.is_complete()
    assert log == []


@pytest.mark.parametrize(
    "settings", [{"tune": "off"}, {"disable": ("acme:result",)}], ids=["tune is off", "the artifact is disabled"]
)
def test_switched_off_it_is_skipped(run, settings):
    report, log = run("[Result()]", **settings)
    assert [outcome for outcome, _ in rows(report)["acme:result"]] == ["skipped"]
    assert log == []


@pytest.mark.parametrize("artifacts", ["[Result(), Result()]", "[FourMembers()]", "None", "1 / 0"])
def test_a_plugin_that_cannot_list_its_artifacts_keeps_its_kernels(run, artifacts):
    report, _ = run(artifacts)
    assert set(rows(report)) == {"acme:four"}
    assert [error["hook"] for error in report.policy_errors] == ["jitwarm_tuned_artifacts"]
    assert not report.refused


def test_a_failed_tuning_names_no_command_to_try_a_compile(run):
    report, _ = run("[type('Broken', (Result,), {'tune': lambda *_: 1 / 0})()]")
    [row] = report.kernels["acme:result"].rows
    assert row.outcome == "failed"
    assert "ZeroDivisionError" in row.error
    assert report.repro(row) == ""


def test_a_glob_may_name_an_artifact_alone(run):
    report, _ = run("[Result()]", glob="acme:result")
    assert set(rows(report)) == {"acme:result"}
