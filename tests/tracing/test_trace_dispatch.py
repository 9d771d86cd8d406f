"""`trace_dispatch`: none missing, none extra, each once; and a slip is told by name and place."""

import enum
import functools
from dataclasses import dataclass

import pytest
from kits import Key

from jitwarm import Choices, IntRange, JitKernel, WarmupConfig, rows, trace, trace_dispatch
from jitwarm.errors import DomainError, KeySpaceTooLargeError, TracingError, UnencodableKey
from jitwarm.tracing import collected_traces


class Dtype(enum.Enum):
    BF16 = "bfloat16"


def tile(*, m, dtype="bfloat16"):
    return Key((16 if m <= 64 else 128, dtype))


def sequence(*, a, b):
    return Key((a, b))


def quotient(n, by):
    return Key(n // by)


def seen(keys):
    """Keys by type and value: `==` takes 1 for True."""
    return [(type(key.n), key.n) for key in keys]


def test_a_thousand_sizes_reach_two_keys():
    assert trace_dispatch(tile, m=IntRange(1, 1025)) == [Key((16, "bfloat16")), Key((128, "bfloat16"))]


def test_a_half_open_range_does_not_reach_its_stop():
    assert trace_dispatch(tile, m=IntRange(1, 65)) == [Key((16, "bfloat16"))]
    assert len(trace_dispatch(tile, m=IntRange(1, 66))) == 2


def test_keys_come_in_the_order_of_declaration_the_last_input_fastest():
    keys = trace_dispatch(sequence, a=Choices(2, 1), b=IntRange(0, 2))
    assert [key.n for key in keys] == [(2, 0), (2, 1), (1, 0), (1, 1)]
    keys = trace_dispatch(sequence, b=Choices(2, 1), a=IntRange(0, 2))
    assert [key.n for key in keys] == [(0, 2), (1, 2), (0, 1), (1, 1)]


def test_rows_vary_together_and_freely_with_everything_else():
    def dispatch(*, head, window, m):
        return Key((head, window, m))

    keys = trace_dispatch(dispatch, rows({"head": 64, "window": 0}, {"head": 128, "window": 4096}), m=Choices(1, 2))
    assert [key.n for key in keys] == [(64, 0, 1), (64, 0, 2), (128, 4096, 1), (128, 4096, 2)]


def test_two_groups_of_rows_combine_freely_and_a_row_may_hold_a_space():
    keys = trace_dispatch(sequence, rows({"a": 1}, {"a": IntRange(5, 7)}), rows({"b": 0}, {"b": 9}))
    assert [key.n for key in keys] == [(1, 0), (1, 9), (5, 0), (6, 0), (5, 9), (6, 9)]


def test_bare_mappings_together_are_one_group():
    assert [key.n for key in trace_dispatch(sequence, {"a": 1, "b": 2}, {"a": 3, "b": 4})] == [(1, 2), (3, 4)]


def test_a_list_among_the_positional_arguments_is_no_row():
    with pytest.raises(DomainError, match="is no row"):
        trace_dispatch(sequence, [1, 2], b=1)


def test_a_name_that_is_declared_twice_is_refused():
    with pytest.raises(DomainError, match="a declared twice"):
        trace_dispatch(sequence, rows({"a": 1}), a=2, b=3)


def test_when_excludes_points_and_may_take_inputs_that_dispatch_does_not():
    keys = trace_dispatch(
        sequence, a=IntRange(0, 4), b=IntRange(0, 4), limit=1, when=lambda a, b, limit: a + b <= limit
    )
    assert [key.n for key in keys] == [(0, 0), (0, 1), (1, 0)]


def test_a_parameter_of_when_without_an_input_is_an_error_that_names_it():
    with pytest.raises(DomainError, match="limt"):
        trace_dispatch(sequence, a=1, b=2, when=lambda a, limt: a < limt)


def test_a_misspelt_input_is_an_error_with_the_nearest_name_and_the_place():
    with pytest.raises(DomainError, match="tile takes no input 'dtyp'") as caught:
        trace_dispatch(tile, m=1, dtyp="float16")
    assert "'dtype'" in caught.value.hint
    assert caught.value.where.startswith(f"{__file__}:")


def test_a_parameter_with_neither_input_nor_default_is_an_error_with_what_to_declare():
    with pytest.raises(DomainError, match="parameter 'm' has neither") as caught:
        trace_dispatch(tile, dtype="float16")
    assert "m=IntRange" in caught.value.hint


def test_a_default_needs_no_input():
    assert trace_dispatch(tile, m=1) == [Key((16, "bfloat16"))]


def test_a_dispatch_without_inputs_has_one_point():
    assert trace_dispatch(lambda: Key(7)) == [Key(7)]


def test_assert_and_raise_put_a_point_outside_the_domain():
    def dispatch(*, n):
        assert n != 1
        if n == 2:
            raise NotImplementedError("two")
        with memoryview(b""):
            assert n != 3
        return Key(n)

    assert [key.n for key in trace_dispatch(dispatch, n=IntRange(0, 6))] == [0, 4, 5]


def test_an_operation_that_fails_is_an_error_with_its_inputs_and_its_place():
    with pytest.raises(TracingError, match=r"quotient\(n=4, by=0\) failed: ZeroDivisionError") as caught:
        trace_dispatch(quotient, n=4, by=IntRange(0, 3))
    line = quotient.__code__.co_firstlineno + 1
    assert caught.value.where == f"{__file__}:{line}"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("fails", [lambda n: {1: 16}[n], lambda n: [16][n], lambda n: int("x" * n), lambda n: n.size])
def test_no_failed_look_up_is_taken_for_a_refusal(fails):
    with pytest.raises(TracingError, match=r"\(n=2\) failed"):
        trace_dispatch(lambda *, n: Key(fails(n)), n=2)


def test_a_library_that_raises_inside_dispatch_is_no_refusal_of_the_author():
    """`Dtype("fp8")` fails in enum.py; taken for a refusal, the key would be missing without a word."""
    with pytest.raises(TracingError, match="fp8"):
        trace_dispatch(lambda *, dtype: Key(Dtype(dtype)), dtype=Choices("bfloat16", "fp8"))


def test_a_guard_in_a_helper_of_the_author_is_a_refusal():
    def even(n):
        if n % 2:
            raise ValueError(n)
        return n

    assert [key.n for key in trace_dispatch(lambda *, n: Key(even(n)), n=IntRange(0, 5))] == [0, 2, 4]


def test_a_domain_in_which_no_point_reaches_a_key_is_an_error():
    with pytest.raises(DomainError, match="no point of the domain reaches a key; all 3 are outside"):
        trace_dispatch(tile, m=IntRange(1, 4), when=lambda m: m > 100)


def test_a_path_that_returns_no_key_is_an_error():
    with pytest.raises(TracingError, match=r"\(n=3\) returned None, which is no compile key"):
        trace_dispatch(lambda *, n: Key(n) if n < 3 else None, n=IntRange(0, 5))


def test_a_key_that_holds_a_list_names_the_field():
    with pytest.raises(UnencodableKey, match=r"Key\.n holds a list"):
        trace_dispatch(lambda *, n: Key([n]), n=1)


def opaque(*, m, n):
    return Key(hash((m, n)) % 5)


def test_past_max_points_the_expression_and_the_input_that_need_them_are_named():
    with pytest.raises(KeySpaceTooLargeError, match="more than max_points=1,999") as caught:
        trace_dispatch(opaque, m=Choices(1, 2), n=IntRange(0, 1_000_000), max_points=1999)
    assert "'n'" in caught.value.hint
    assert "return Key(hash((m, n)) % 5)\n               ^^^^^^^^^^^^" in caught.value.message
    assert caught.value.where.endswith(f"test_trace_dispatch.py:{opaque.__code__.co_firstlineno + 1}")


def test_a_function_without_source_is_called_at_every_point_and_the_notes_say_so():
    scope = {"Key": Key}
    exec("def dispatch(*, m): return Key(m // 500)", scope)
    found = trace(scope["dispatch"], m=IntRange(0, 1000))
    assert list(found.keys) == [Key(0), Key(1)]
    assert any("every point was evaluated: dispatch has no source" in note for note in found.notes)
    with pytest.raises(KeySpaceTooLargeError, match="can only be called point by point"):
        trace(scope["dispatch"], m=IntRange(0, 1000), max_points=999)


def test_one_true_and_one_point_zero_are_three_keys_in_order():
    keys = trace_dispatch(lambda *, n: Key(n), n=Choices(1, True, 1.0, 1))
    assert seen(keys) == [(int, 1), (bool, True), (float, 1.0)]


def test_a_reserved_parameter_name_is_refused():
    def dispatch(*, when):
        return Key(when)

    with pytest.raises(DomainError, match="may not be called when"):
        trace_dispatch(dispatch)


def test_keyword_arguments_of_dispatch_take_any_input():
    assert trace_dispatch(lambda **inputs: Key(tuple(sorted(inputs))), b=1, a=2) == [Key(("a", "b"))]


@pytest.mark.parametrize("space", [{"n": 1}, {"n": IntRange(0, 10**7)}, {"n": 1, "when": lambda n: False}])
def test_a_partial_function_is_traced_and_its_errors_are_ours(space):
    assert trace_dispatch(functools.partial(quotient, by=2), n=4) == [Key(2)]
    with pytest.raises(TracingError):
        trace_dispatch(functools.partial(quotient, by=0), **space)


def test_a_session_gathers_the_traces_that_a_kernel_makes():
    class Traced(JitKernel):
        @dataclass(frozen=True)
        class CompileKey:
            m: int

        def dispatch(self, *, m):
            return self.CompileKey(m // 8)

        def get_warmup_keys(self, config):
            return trace_dispatch(self.dispatch, m=IntRange(0, config.max_num_seqs))

        def compile(self, key):
            pass

    with collected_traces() as traces:
        keys = Traced().get_warmup_keys(WarmupConfig(max_num_seqs=20))
    trace_dispatch(tile, m=1)
    assert [key.m for key in keys] == [0, 1, 2]
    assert [list(found.keys) for found in traces] == [keys]


def test_a_trace_has_a_witness_for_each_key_and_says_what_is_outside():
    found = trace(tile, m=IntRange(1, 101), when=lambda m: m != 3)
    assert [found.witness(index) for index in range(2)] == [{"m": 1}, {"m": 65}]
    assert found.notes == ("some inputs are outside the domain, e.g. m=3",)


@pytest.mark.parametrize(
    ("value", "hint"), [(range(1, 9), "write IntRange(1, 9, 1)"), ([1, 2], "write Choices(*values)")]
)
def test_a_range_or_a_list_is_not_taken_for_a_space(value, hint):
    with pytest.raises(DomainError, match="is one value here") as caught:
        trace_dispatch(tile, m=value)
    assert caught.value.hint.startswith(hint)


def as_dict(*, m):
    return {"block": m} if m > 3 else Key(m)


def test_something_else_than_a_key_is_told_with_the_inputs_that_lead_there():
    with pytest.raises(
        TracingError, match=r"as_dict\(m=4\) returned \{'block': 4\}, which is no compile key"
    ) as caught:
        trace_dispatch(as_dict, m=IntRange(1, 1000))
    assert "CompileKey on every path" in caught.value.hint
