"""What is said of a compile, by what is known of it. No compiler: what it saw is given."""

import sys
import types
from dataclasses import dataclass

import pytest

from jitwarm import Backend, JitKernel
from jitwarm.contract.backend import Seen
from jitwarm.contract.kernel import RegisteredKernel
from jitwarm.contract.keys import encode_key, format_key, key_digest
from jitwarm.monitor import ExpectedKernel, ExpectedKey, Monitor, sentence
from jitwarm.monitor.explanation import explain
from jitwarm.monitor.stack import Asked


class Gemm(JitKernel):
    name = "gemm"

    @dataclass(frozen=True)
    class CompileKey:
        block: int
        mode: object = "a"

    def dispatch(self, *, block: int) -> CompileKey:
        return self.CompileKey(block)

    def get_warmup_keys(self, config):
        return []

    def compile(self, key):
        return None


KERNEL = Gemm()
RECORD = RegisteredKernel("kit:gemm", KERNEL, "kit", "kit 1.0")
SEEN = Seen("triton", "compile", "kit:gemm", {"x": "*fp32, aligned", "n": "i32"}, 0.5)


def expected(*blocks, domain=(), problem="", outcome="compiled"):
    keys = []
    for block in blocks:
        key = Gemm.CompileKey(block)
        keys.append(ExpectedKey(key_digest("kit:gemm", encode_key(key)), format_key(key), key, outcome))
    return ExpectedKernel(RECORD, tuple(keys), domain, problem)


def of_key(kernel, block, mode="a", inputs=None):
    return explain(SEEN, kernel, Asked(RECORD, Gemm.CompileKey(block, mode), inputs or {}), lambda _: {})


def of_specialization(kernel, specialization):
    return explain(SEEN, kernel, None, specialization)


def test_the_nearest_key_differs_in_fewest_fields_and_then_by_least():
    found = of_key(expected(16, 64, 256), 100)
    assert (found.nearest, found.differences) == ("block=64, mode=a", ("block: 64 -> 100",))
    assert found.why == "no such key is declared"
    assert found.line.startswith("list block=100, mode=a in get_warmup_keys of Gemm (")


def test_one_and_true_are_two_values():
    assert of_key(expected(1), True).differences == ("block: 1 -> True",)


@pytest.mark.parametrize(
    ("values", "value", "difference", "line"),
    [
        (range(1, 65), 100, "block 100 is outside [1, 64]", "block=IntRange(1, 101) in"),
        (range(16, 65, 16), 80, "block 80 is outside [16, 64] by 16", "block=IntRange(16, 81, 16) in"),
        (range(16, 65, 16), 8, "block 8 is outside [16, 64] by 16", "block=IntRange(8, 65, 8) in"),
        ((16, 32), 64, "block 64 is outside {16, 32}", "block=Choices(16, 32, 64) in"),
        (("a",), True, "block True is outside {a}", "block=Choices('a', True) in"),
    ],
)
def test_an_input_outside_its_space_says_how_to_write_it(values, value, difference, line):
    found = of_key(expected(16, domain=[{"block": values}]), 100, inputs={"block": value})
    assert found.differences == (difference,)
    assert found.line.startswith(line)


def test_an_input_that_one_group_of_rows_holds_is_inside():
    found = of_key(expected(16, domain=[{"block": (16,)}, {"block": (100,)}]), 100, inputs={"block": 100})
    assert found.differences == ("block: 16 -> 100",)


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        (expected(), "this kernel listed no keys for this configuration"),
        (
            expected(problem="ValueError: no such model\n  at: x.py:3"),
            "its keys could not be listed: ValueError: no such model",
        ),
        (expected(100, outcome=None), "this key was expected, but the start left it cold: not reached"),
    ],
)
def test_a_kernel_without_such_a_key_says_why(kernel, why):
    assert of_key(kernel, 100).why == why


def test_a_key_that_cannot_be_written_down_is_said_so():
    assert "cannot be written down" in of_key(expected(16), 16, mode=object()).why


def test_without_a_key_what_the_compiler_specialized_on_is_compared():
    kernel = expected(16, 64)
    texts = {16: {"x": "*bf16", "n": "i64"}, 64: {"x": "*fp32, aligned", "n": "i32, multiple of 16"}}
    found = of_specialization(kernel, lambda key: texts[key.block])
    assert (found.nearest, found.differences) == ("block=64, mode=a", ("n: i32, multiple of 16 -> i32",))


def test_a_specialization_that_cannot_be_made_leaves_the_rest_of_the_explanation():
    found = of_specialization(expected(16), lambda _: 1 / 0)
    assert (found.kernel, found.nearest, found.label) == ("kit:gemm", "", "x=*fp32, aligned, n=i32")


def test_the_sentence_has_all_of_it():
    found = of_key(expected(64), 100)
    event = {**vars(found), "what": "compile", "function": "kit:gemm", "seconds": 0.5}
    assert sentence(event) == (
        "kit:gemm [block=100, mode=a] compiled after the start, in 0.50 s: no such key is declared; "
        "differences to the nearest, [block=64, mode=a]: block: 64 -> 100"
    )


class Watched(Backend):
    """A third party's backend: what it sees is what the test says."""

    name = "watched"

    def watch(self, see):
        self.see = see
        return super().watch(see)


class Unwatchable(Backend):
    name = "unwatchable"

    def watch(self, see):
        raise ImportError("no such hook")


def test_a_backend_that_cannot_be_watched_is_told_and_the_others_are_watched():
    events, watched = [], Watched()
    with Monitor([Unwatchable(), watched], lambda event, **fields: events.append((event, fields))):
        watched.see(Seen("watched", "compile", "kit:f"))
    assert events[0] == ("monitor_blind", {"backend": "unwatchable", "error": "ImportError: no such hook"})
    assert [fields["function"] for event, fields in events if event == "unexpected_compile"] == ["kit:f"]


def test_a_torch_that_cannot_be_watched_leaves_the_rest_armed(monkeypatch):
    """Its callbacks are no public interface."""
    monkeypatch.setitem(sys.modules, "torch._dynamo", types.ModuleType("torch._dynamo"))
    monkeypatch.setitem(sys.modules, "torch._dynamo.callback", None)
    events, watched = [], Watched()
    with Monitor([watched], lambda event, **fields: events.append((event, fields))):
        watched.see(Seen("watched", "compile", "kit:f"))
    names = [event for event, _ in events]
    assert ("monitor_blind", "inductor") in [(event, fields.get("backend")) for event, fields in events]
    assert names.index("monitor_armed") < names.index("unexpected_compile")


def test_a_disk_that_is_full_is_told_once_and_ends_no_launch():
    events, watched = [], Watched()

    def record(event, replay):
        raise OSError(28, "No space left on device")

    with Monitor([watched], lambda event, **fields: events.append(event), mode="record", record=record):
        for _ in range(3):
            watched.see(Seen("watched", "compile", "kit:f"))
    assert events.count("unexpected_compile") == 3
    assert events.count("record_failed") == 1


def test_off_listens_to_nothing():
    watched = Watched()
    with Monitor([watched], lambda event, **fields: pytest.fail(event), mode="off"):
        assert not hasattr(watched, "see")
