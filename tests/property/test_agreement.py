"""The rule by which ranks agree, over every mixture of ranks: played through as the ranks would, without processes."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from jitwarm.contract.kernel import Outcome
from jitwarm.engine.agreement import Standing, decide

FINGERPRINTS, DIGESTS = ("stage 0", "stage 1"), ("", "", "x", "y")
PROBLEMS = st.just((Outcome.FAILED.value, "odd")) | st.just((Outcome.SKIPPED.value, "off"))


NO_PROBLEMS = st.none()


def worlds(problems=NO_PROBLEMS):
    """Where each of up to six ranks stands; all of one kind of tuning, as ranks with the same code are."""
    standing = st.tuples(
        st.sampled_from(FINGERPRINTS), st.sampled_from(DIGESTS), st.sampled_from(["", "", "", "no GPU"]), problems
    )
    ranks = st.lists(standing | standing | standing | st.none(), min_size=1, max_size=6)
    return st.tuples(ranks, st.booleans()).map(
        lambda drawn: [one and Standing(one[0], one[1], one[2], drawn[1], one[3]) for one in drawn[0]]
    )


def played(standings):
    """The bytes that each rank ends with, and how many messages each has sent or received; as `engine/tuning.py` does it."""
    agreement = decide(standings)
    holds = {rank: one.sha256 for rank, one in enumerate(standings) if one}
    n_messages = defaultdict(int)
    if agreement.refusal:
        return dict.fromkeys(holds, ""), n_messages
    for rank in agreement.tuners:
        holds[rank] = f"tuned by {rank}"
    for equals in agreement.groups:
        senders = agreement.senders(equals)
        for rank in range(len(standings)):
            n_messages[rank] += len(senders)
        received = [holds[rank] for rank in senders]
        for rank in equals.members:
            if equals.source is None:
                holds[rank] = ""
            elif equals.tunes and agreement.is_collective:
                holds[rank] = "+".join(received or [holds[rank]])
            else:
                holds[rank] = received[0] if received else holds[rank]
    return holds, n_messages


@given(worlds())
def test_equal_ranks_end_with_the_same_bytes(standings):
    holds, _ = played(standings)
    by_fingerprint = defaultdict(set)
    for rank, data in holds.items():
        by_fingerprint[standings[rank].fingerprint].add(data)
    assert all(len(found) == 1 for found in by_fingerprint.values())


@given(worlds())
def test_what_some_rank_holds_or_can_find_is_applied(standings):
    """Nothing is left untuned without a reason; and nobody tunes what is held."""
    agreement = decide(standings)
    for equals in agreement.groups:
        members = [standings[rank] for rank in equals.members]
        is_held = any(one.sha256 for one in members)
        if is_held:
            assert equals.source is not None
            assert not equals.tunes or agreement.is_collective
        elif not agreement.is_collective:
            assert (equals.source is None) == all(one.cannot_tune for one in members)
        assert (equals.source is None) == bool(equals.reason)


@given(worlds())
def test_every_rank_takes_part_in_the_same_messages(standings):
    _, n_messages = played(standings)
    assert len({n_messages[rank] for rank in range(len(standings))}) == 1


@given(worlds())
def test_collective_tuning_has_every_rank_or_none(standings):
    agreement = decide(standings)
    if agreement.is_collective:
        assert len(agreement.tuners) in (0, len(standings))
        assert all(not standings[rank].cannot_tune for rank in agreement.tuners)
    else:
        assert len(agreement.tuners) == sum(equals.tunes for equals in agreement.groups)
        assert all(not standings[rank].cannot_tune for rank in agreement.tuners)


@given(worlds(problems=st.none() | PROBLEMS))
def test_a_problem_of_one_rank_is_the_end_for_all(standings):
    agreement = decide(standings)
    wrong = [rank for rank, one in enumerate(standings) if one and one.problem]
    assert bool(agreement.refusal) == bool(wrong)
    if wrong:
        assert not agreement.tuners
        assert agreement.refusal[0] == standings[wrong[0]].problem[0]
        assert len(standings) == 1 or f"rank {wrong[0]}" in agreement.refusal[1]


def test_a_stage_that_holds_a_result_tunes_together_with_one_that_does_not():
    agreement = decide([Standing("stage 0", "x", is_collective=True), Standing("stage 1", is_collective=True)])
    assert agreement.tuners == {0, 1}


def test_ranks_of_different_versions_apply_nothing():
    agreement = decide([Standing("a", is_collective=True), Standing("a")])
    assert agreement.refusal == ("failed", "some ranks tune together, and some alone: versions differ")
