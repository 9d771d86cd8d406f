"""Ranks that agree on tuned artifacts: real processes, a real gloo group, and every way in which they may differ."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def mother():
    """A process that has imported torch, and starts ranks."""
    command = [sys.executable, str(SUPPORT / "tuning_rank.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def ranks(mother, tmp_path):
    """Start one process per rank; what each answers, None for one that was killed or never came."""

    def run(*does, name="meeting", timeout_s=20, starts=None):
        for rank, one in enumerate(does):
            one.setdefault("root", str(tmp_path / f"node{rank}"))
            Path(one["root"]).mkdir(exist_ok=True)
        spec = tmp_path / f"{name}.json"
        come = list(range(len(does))) if starts is None else starts
        meeting = {"meeting": str(tmp_path / name), "timeout_s": timeout_s, "starts": come, "ranks": does}
        spec.write_text(json.dumps(meeting))
        print(spec, file=mother.stdin, flush=True)
        assert set(json.loads(mother.stdout.readline())) <= {0, -9}
        answers = [Path(f"{spec}.{rank}") for rank in range(len(does))]
        return [json.loads(answer.read_text()) if answer.exists() else None for answer in answers]

    return run


def kept(root):
    """The bytes of the results in a store."""
    return [file.read_text() for file in sorted(Path(root).glob("tuned/*.bin"))]


def outcomes(answers):
    return [answer["outcome"] for answer in answers]


def in_use(answers):
    return [answer["in_use"] for answer in answers]


def n_tuned(answers):
    return [answer["n_tuned"] for answer in answers]


def named(answer, event):
    return [one for one in answer["events"] if one["event"] == event]


@pytest.mark.parametrize("n", [2, 3])
def test_one_tunes_and_all_apply(ranks, tmp_path, n):
    first = ranks(*({"tunes": f"by {rank}"} for rank in range(n)))
    assert n_tuned(first) == [1] + [0] * (n - 1)
    assert in_use(first) == ["by 0"] * n
    assert outcomes(first) == ["compiled"] + ["loaded"] * (n - 1)
    assert [kept(tmp_path / f"node{rank}") for rank in range(n)] == [["by 0"]] * n

    second = ranks(*({"tunes": "again"} for _ in range(n)), name="second")
    assert n_tuned(second) == [0] * n
    assert in_use(second) == ["by 0"] * n
    assert outcomes(second) == ["loaded"] * n
    assert [event["source"] for answer in second for event in named(answer, "tuned_applied")] == ["store"] * n


def test_a_hit_on_one_rank_is_given_to_the_others(ranks, tmp_path):
    ranks({"tunes": "old"}, {})
    shutil.rmtree(tmp_path / "node0" / "tuned")
    answers = ranks({"tunes": "new"}, {"tunes": "new"}, name="second")
    assert n_tuned(answers) == [0, 0]
    assert in_use(answers) == ["old", "old"]
    assert kept(tmp_path / "node0") == ["old"]
    assert [event["source"] for event in named(answers[0], "tuned_applied")] == ["rank 1"]


def test_other_bytes_on_two_ranks_become_the_same(ranks, tmp_path):
    for rank in range(3):
        ranks({"root": str(tmp_path / f"node{rank}"), "tunes": f"of {rank}"}, name=f"alone{rank}")
    answers = ranks({}, {}, {})
    assert n_tuned(answers) == [0, 0, 0]
    assert in_use(answers) == ["of 0"] * 3
    assert [kept(tmp_path / f"node{rank}") for rank in range(3)] == [["of 0"]] * 3


@pytest.mark.parametrize("file", ["bin", "json"])
@pytest.mark.parametrize("damage", ["other bytes", "cut off", "removed"])
def test_a_corrupt_result_is_a_miss_and_is_mended(ranks, tmp_path, file, damage):
    ranks({"tunes": "whole"}, {})
    [path] = (tmp_path / "node0" / "tuned").glob(f"*.{file}")
    content = path.read_bytes()
    path.write_bytes(b"x" * len(content) if damage == "other bytes" else content[:3])
    if damage == "removed":
        path.unlink()
    answers = ranks({}, {}, name="second")
    assert n_tuned(answers) == [0, 0]
    assert in_use(answers) == ["whole", "whole"]
    is_seen = (file, damage) != ("json", "removed")  # bytes that no record names are nobody's
    assert len(named(answers[0], "entry_damaged")) == is_seen
    assert in_use(ranks({"may_tune": False}, name="alone")) == ["whole"]


def test_corrupt_everywhere_is_tuned_again(ranks, tmp_path):
    ranks({"tunes": "old"}, {})
    for path in tmp_path.glob("node*/tuned/*.bin"):
        path.write_bytes(b"not this")
    answers = ranks({"tunes": "new"}, {}, name="second")
    assert n_tuned(answers) == [1, 0]
    assert in_use(answers) == ["new", "new"]


@pytest.mark.parametrize("collective", [False, True])
def test_a_tuner_that_raises_leaves_all_ranks_as_they_were(ranks, tmp_path, collective):
    answers = ranks({"tune": "raises", "collective": collective}, {"collective": collective})
    assert in_use(answers) == [None, None]
    assert outcomes(answers) == ["failed", "failed"]
    assert all("rank 0: not tuned: RuntimeError: tune has failed" in answer["error"] for answer in answers)
    assert kept(tmp_path / "node0") + kept(tmp_path / "node1") == []


def test_a_killed_tuner_ends_in_no_tuning_on_the_others(ranks):
    dead, *living = ranks({"tune": "dies"}, {}, {}, timeout_s=60)
    assert dead is None
    assert in_use(living) == [None, None]
    assert outcomes(living) == ["failed", "failed"]
    assert all("could not agree" in answer["error"] for answer in living)


def test_a_tuner_that_hangs_is_left_behind(ranks):
    answers = ranks({"tune": "hangs"}, {}, timeout_s=6)
    assert in_use(answers) == [None, None]
    assert outcomes(answers) == ["timed_out", "timed_out"]
    assert all("JITWARM_TUNE_TIMEOUT_S" in answer["error"] for answer in answers)


def test_what_one_rank_cannot_apply_is_taken_back_on_all(ranks, tmp_path):
    answers = ranks({"tunes": "odd"}, {"apply": "raises"}, {})
    assert in_use(answers) == [None, None, None]
    assert outcomes(answers) == ["failed"] * 3
    assert all("rank 1: RuntimeError: apply has failed" in answer["error"] for answer in answers)
    assert [len(named(answer, "tuned_reverted")) for answer in answers] == [1, 0, 1]
    assert [kept(tmp_path / f"node{rank}") for rank in range(3)] == [[], [], []]


def test_a_kept_result_that_cannot_be_applied_is_tuned_again_at_the_next_start(ranks):
    ranks({"tunes": "old"}, {})
    assert outcomes(ranks({}, {"apply": "raises"}, name="second")) == ["failed", "failed"]
    answers = ranks({"tunes": "new"}, {}, name="third")
    assert in_use(answers) == ["new", "new"]


def test_without_revert_it_is_said_that_ranks_differ(ranks):
    answers = ranks({"revert": False}, {"apply": "raises", "revert": False})
    assert outcomes(answers) == ["failed", "failed"]
    assert "cannot be taken back" in answers[0]["error"]
    assert "cannot be taken back" not in answers[1]["error"]


def test_a_rank_that_dies_while_all_apply_has_the_others_take_it_back(ranks):
    living, dead = ranks({}, {"apply": "dies"}, timeout_s=60)
    assert dead is None
    assert (living["outcome"], living["in_use"]) == ("failed", None)


def test_a_rank_whose_plugin_failed_keeps_the_others_from_applying(ranks):
    answers = ranks({}, {"artifact": False, "absent": "plugin acme is refused: no torch"}, {})
    assert n_tuned(answers) == [0, 0, 0]
    assert in_use(answers) == [None, None, None]
    assert outcomes(answers) == ["failed", None, "failed"]
    assert "rank 1: plugin acme is refused: no torch" in answers[0]["error"]


@pytest.mark.parametrize("does", [{"fails": "no warm-up: no target"}, {"plans": False}], ids=["no session", "no plan"])
def test_a_rank_whose_warm_up_failed_keeps_the_others_from_applying(ranks, does):
    answers = ranks({}, does)
    assert (n_tuned(answers), in_use(answers)) == ([0, 0], [None, None])
    assert answers[0]["outcome"] == "failed"
    assert "rank 1: " in answers[0]["error"]


def test_ranks_that_differ_are_groups_of_their_own(ranks, tmp_path):
    """As the stages of a pipeline do: other layers, other results; and a rank without any is none of their business."""
    first, last = {"fingerprint": "stage 0"}, {"fingerprint": "stage 1"}
    answers = ranks(
        {**first, "tunes": "a"}, {**last, "tunes": "b"}, {**first, "tunes": "c"}, {**last, "tunes": "d"},
        {"artifact": False},
    )  # fmt: skip
    assert n_tuned(answers) == [1, 1, 0, 0, 0]
    assert in_use(answers) == ["a", "b", "a", "b", None]


def test_one_stage_that_fails_does_not_stop_the_other(ranks):
    first, last = {"fingerprint": "stage 0"}, {"fingerprint": "stage 1"}
    answers = ranks({**first, "tune": "raises"}, dict(last), dict(first), dict(last))
    assert outcomes(answers) == ["failed", "compiled", "failed", "loaded"]


def test_collective_tuning_takes_every_rank_and_merges(ranks, tmp_path):
    does = {"collective": True, "merges": True}
    answers = ranks({**does, "tunes": "a"}, {**does, "tunes": "b"})
    assert n_tuned(answers) == [1, 1]
    assert in_use(answers) == ["a+b", "a+b"]
    assert outcomes(answers) == ["compiled", "compiled"]

    shutil.rmtree(tmp_path / "node1" / "tuned")  # a hit and a miss: nobody tunes beside a rank that does not
    answers = ranks(dict(does), dict(does), name="second")
    assert n_tuned(answers) == [0, 0]
    assert in_use(answers) == ["a+b", "a+b"]


def test_collective_tuning_is_not_begun_without_all_ranks(ranks):
    answers = ranks({"collective": True}, {"artifact": False})
    assert n_tuned(answers) == [0, 0]
    assert outcomes(answers) == ["unresolved", None]
    assert "rank 1 does not have it" in answers[0]["error"]


def test_a_store_that_cannot_be_written_is_no_reason_not_to_apply(ranks, tmp_path):
    for rank in range(2):
        (tmp_path / f"node{rank}").mkdir()
        (tmp_path / f"node{rank}" / "tuned").write_text("in the way")  # also where root may write anywhere
    answers = ranks({"tunes": "fresh"}, {})
    assert in_use(answers) == ["fresh", "fresh"]
    assert outcomes(answers) == ["compiled", "loaded"]
    assert all("applied, and not kept" in answer["error"] for answer in answers)


def test_without_a_device_only_what_is_kept_is_known(ranks, tmp_path):
    [alone] = ranks({"needs_device": True})
    assert (alone["outcome"], alone["error"], alone["n_tuned"]) == ("unresolved", "tuning needs a device", 0)
    ranks({"tunes": "elsewhere"}, name="on a device")
    [alone] = ranks({"needs_device": True}, name="third")
    assert (alone["outcome"], alone["in_use"]) == ("loaded", None)


def test_only_apply_never_tunes(ranks):
    answers = ranks({"may_tune": False}, {"may_tune": False})
    assert n_tuned(answers) == [0, 0]
    assert outcomes(answers) == ["unresolved", "unresolved"]


def test_a_rank_that_may_not_tune_leaves_it_to_one_that_may(ranks):
    answers = ranks({"may_tune": False}, {"tunes": "by 1"})
    assert in_use(answers) == ["by 1", "by 1"]


def test_a_rank_that_never_comes_is_waited_for_no_longer_than_the_timeout(ranks):
    answer, absent = ranks({}, {}, timeout_s=3, starts=[0])
    assert absent is None
    assert (answer["outcome"], answer["in_use"]) == ("failed", None)
    assert "did not meet" in answer["error"]
