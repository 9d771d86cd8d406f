"""What a tuned artifact must be, and what is said to whoever gets it wrong."""

import pytest

from jitwarm import TunedArtifact, WarmupConfig
from jitwarm.contract.tuned import RegisteredArtifact, require_artifact
from jitwarm.errors import InvalidArtifactError


class FourMembers:
    """Derives from nothing of ours."""

    name = "result"

    def fingerprint(self, config):
        return "text"

    def tune(self, config):
        return b"bytes"

    def apply(self, data):
        pass


class Derived(TunedArtifact):
    name = "derived"
    fingerprint, tune, apply = FourMembers.fingerprint, FourMembers.tune, FourMembers.apply


def registered(artifact):
    return RegisteredArtifact("acme:result", artifact, "acme", "acme 1.0")


def changed(**members):
    return type("Changed", (FourMembers,), members)()


@pytest.mark.parametrize("artifact", [FourMembers(), Derived()])
def test_four_members_are_enough(artifact):
    require_artifact(artifact)
    record = registered(artifact)
    assert (record.needs_device, record.is_collective, record.can_revert) == (True, False, False)
    assert record.merge([b"of rank 0", b"of rank 1"]) == b"of rank 0"
    assert record.toolchain == "acme 1.0"


@pytest.mark.parametrize(
    ("artifact", "says"),
    [
        (FourMembers, "FourMembers is a class"),
        (object(), "it has no name, fingerprint, tune, apply"),
        (type("Bare", (TunedArtifact,), {"name": "bare"})(), "it has no fingerprint, tune, apply"),
        (changed(name=""), "'' is no name"),
        (changed(name="two\nlines"), "is no name"),
        (changed(tune=b"bytes"), "tune cannot be called"),
        (changed(revert="soon"), "revert cannot be called"),
        (changed(distributions="triton"), "distributions is 'triton'"),
    ],
)
def test_what_is_no_artifact_is_refused_with_the_reason(artifact, says):
    with pytest.raises(InvalidArtifactError, match=says) as refused:
        require_artifact(artifact)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("call", "member", "answer"),
    [
        (lambda record: record.fingerprint(WarmupConfig()), "fingerprint", None),
        (lambda record: record.fingerprint(WarmupConfig()), "fingerprint", ""),
        (lambda record: record.tune(WarmupConfig()), "tune", "text"),
        (lambda record: record.merge([b""]), "merge", None),
    ],
)
def test_an_answer_of_the_wrong_kind_is_named(call, member, answer):
    with pytest.raises(InvalidArtifactError, match=f"acme:result: {member} answered"):
        call(registered(changed(**{member: lambda *_: answer})))


def test_a_named_package_of_another_version_is_another_toolchain():
    record = registered(changed(distributions=("pluggy", "not-installed-here")))
    assert record.toolchain.startswith("acme 1.0, pluggy 1.")
    assert record.toolchain.endswith("not-installed-here not installed")
