"""A kernel that says which ranks use it is skipped on the others, through a whole run."""

import pytest
from kits import FourMembers, Key, Plugin

from jitwarm import JitKernel


class OfTheSampler(FourMembers):
    """Derives from nothing of ours, and asks for the last stage only."""

    def is_for_rank(self, config):
        return config.is_last_pp_rank

    def get_warmup_keys(self, config):
        assert config.is_last_pp_rank, "its keys are not asked for on another rank"
        return super().get_warmup_keys(config)


@pytest.fixture
def run(make_session):
    """The report of one stage of two, over a kernel of the sampler and one of every rank."""

    def run(pp_rank):
        kernels = [
            kind(Key(1), name=name, backend="workshop")
            for kind, name in ((OfTheSampler, "sampler"), (FourMembers, "everywhere"))
        ]
        session = make_session({"site": Plugin(*kernels)}, pp_rank=pp_rank, pp_size=2)
        return session.run(session.plan())

    return run


def test_on_another_rank_a_kernel_is_one_skipped_row_and_the_others_go_on(run):
    report = run(pp_rank=0)
    (row,) = report.kernels["site:sampler"].rows
    assert (row.digest, row.outcome, row.error) == (None, "skipped", "not on this rank")
    assert [row.outcome for row in report.kernels["site:everywhere"].rows] == ["compiled"]
    assert report.is_complete()


def test_on_its_own_rank_a_kernel_is_compiled(run):
    assert run(pp_rank=1).outcomes == {"compiled": 2}


def test_a_kernel_that_fails_to_say_is_one_row(make_session):
    kernel = FourMembers(Key(1), backend="workshop")
    kernel.is_for_rank = lambda config: config.is_lst_pp_rank
    session = make_session({"site": Plugin(kernel)})
    (row,) = session.run(session.plan()).rows
    assert row.outcome == "failed"
    assert "is_lst_pp_rank" in row.error


def test_our_base_class_is_for_every_rank():
    class Everywhere(JitKernel, trace=False):
        CompileKey = Key

        def dispatch(self, *, n):
            return Key(n)

        def get_warmup_keys(self, config):
            return []

        def compile(self, key):
            pass

    assert Everywhere().is_for_rank(None)
