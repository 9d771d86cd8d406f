"""FlashInfer's tuning as a tuned artifact, by the real code of vLLM and FlashInfer; the GPU's part has stand-ins."""

import pytest

pytest.importorskip("flashinfer")
NOTHING = {"timed": 0, "dummy runs": 0}


@pytest.fixture(scope="module")
def observed(run_over_wheel):
    return run_over_wheel("tactics.py")


def test_it_is_there_where_vllm_would_tune(observed):
    assert [observed[name] for name in ("without a model", "on sm 80", "switched off")] == [0, 0, 0]
    assert observed["managed store"] == "Skipped"


def test_what_is_skipped_is_part_of_the_fingerprint(observed):
    assert observed["skipped ops are in the fingerprint"]
    assert observed["timed though skipped"] == 0
    assert observed["the same fingerprint again"]


def test_a_failing_tactic_is_passed_over_and_the_fastest_is_found(observed):
    assert observed["tuned"] == {"timed": True, "dummy runs": 1, "tactic": 1}


def test_a_kept_result_is_used_and_vllms_own_step_finds_it_done(observed):
    assert (observed["forgotten"], observed["applied"]) == (-1, 1)
    assert observed["vLLM's own step after it"] == {**NOTHING, "tactic": 1}


def test_reverted_nothing_is_left(observed):
    assert observed["reverted"] == {"tactic": -1, "files": 0}


def test_without_a_directory_of_vllms_it_is_applied_all_the_same(observed):
    """vLLM's own step then repeats its dummy run, in a temporary directory, and times nothing."""
    assert observed["applied, no directory for vLLM"] == 1
    assert observed["vLLM's own step, in a temporary directory"] == {"timed": 0, "dummy runs": 1}


def test_bytes_that_cannot_be_used_change_nothing(observed):
    assert set(observed["refused"]) == {"cut off", "no document", "no tactic", "other environment"}
    assert all(name in ("ValueError", "JSONDecodeError") for name in observed["refused"].values())
    assert observed["after that"] == {"tactic": -1, "files": 0}


def test_the_results_of_ranks_are_merged(observed):
    assert observed["merged"] == {"all entries": True, "the lowest rank counts": True, "other GPUs": "ValueError"}
