"""Periodic forms and spans, kept as runs, against plain lists of values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitwarm.tracing import runs
from jitwarm.tracing.periodic import OPERATORS, Periodic, line, of_constant, of_pair, of_reflected
from jitwarm.tracing.spans import Span

POSITIONS = range(-7, 160)
constants = st.integers(-20, 20).filter(bool)
steps = st.lists(st.tuples(st.sampled_from(["+", "-", "*", "//", "%", "&", "|", "^"]), constants), max_size=4)
subsets = st.integers(1, 24).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1)))


def built(start, step, operations):
    """A form, and the same function as plain Python."""
    form, applied = line(start, step), []
    for name, c in operations:
        if (following := of_constant(name, form, c)) is None:
            continue
        form = following
        applied.append((name, c))

    def value(position):
        found = start + step * position
        for name, c in applied:
            found = OPERATORS[name](found, c)
        return found

    return form, value


@given(st.integers(-9, 9), st.integers(1, 9), steps)
def test_a_form_is_the_function_that_it_was_made_from(start, step, operations):
    form, value = built(start, step, operations)
    assert [form.at(i) for i in POSITIONS] == [value(i) for i in POSITIONS]
    assert form.starts[0] == 0
    values = [value(i) for i in range(2 * form.period + 1)]
    expected = 1 if values == sorted(values) else -1 if values == sorted(values, reverse=True) else None
    assert form.direction == expected


@given(st.integers(1, 5), steps, steps, st.sampled_from(["+", "-", "*", "&", "^", "//", "%"]))
def test_two_forms_combine_as_their_values_do(step, first, second, name):
    (a, value_a), (b, value_b) = built(1, step, first), built(0, 1, second)
    try:
        form = of_pair(name, a, b)
    except ZeroDivisionError:
        return
    if form is not None:
        assert [form.at(i) for i in POSITIONS] == [OPERATORS[name](value_a(i), value_b(i)) for i in POSITIONS]


@given(constants, steps, st.sampled_from(["+", "-", "*", "//", "%", "&"]))
def test_a_constant_on_the_left_is_told_from_one_on_the_right(c, operations, name):
    b, value = built(1, 3, operations)
    try:
        form = of_reflected(name, c, b)
    except ZeroDivisionError:
        return
    if form is not None:
        assert [form.at(i) for i in POSITIONS] == [OPERATORS[name](c, value(i)) for i in POSITIONS]


def test_a_quotient_has_two_runs_for_each_value_and_not_an_entry_for_each_position():
    form = of_constant("%", of_constant("//", line(127, 1), 128), 132)
    assert form.period == 128 * 132
    assert len(form.starts) <= 2 * 132
    assert [form.at(i) for i in range(20_000)] == [(i + 127) // 128 % 132 for i in range(20_000)]


def test_zeros_of_both_signs_are_two_runs():
    form = Periodic(0, 4, (0, 1), (1, 2)).mapped(1, 0, lambda v: 0.0 if v == 1 else -0.0)
    assert [math.copysign(1, form.at(i)) for i in range(4)] == [1, -1, -1, -1]


@given(subsets, subsets, st.integers(-30, 60), st.integers(0, 90), st.integers(-40, 70), st.integers(0, 90))
def test_spans_are_sets_of_positions(own, other, lo, length, cut, cut_length):
    (m, residues), (n, more) = own, other
    first = Span(lo, lo + length, m, runs.of_residues(iter(sorted(residues)))).clip(lo, lo + length)
    expected = [i for i in range(lo, lo + length + 1) if i % m in residues]
    if first is None:
        assert not expected
        return
    assert list(first.members()) == expected
    assert [i in first for i in range(lo - 3, lo + length + 4)] == [
        i in expected for i in range(lo - 3, lo + length + 4)
    ]
    assert first.count() >= len(expected)
    for part, inside in [
        (first.clip(cut, cut + cut_length), [i for i in expected if cut <= i <= cut + cut_length]),
        (first.refine(n, runs.of_residues(iter(sorted(more)))), [i for i in expected if i % n in more]),
    ]:
        assert (list(part.members()) if part else []) == inside
        assert part is None or (part.lo, part.hi) == (inside[0], inside[-1])


@given(subsets)
def test_a_complement_is_the_rest(given_set):
    modulus, residues = given_set
    inside = runs.of_residues(iter(sorted(residues)))
    outside = runs.complement(inside, modulus)
    assert list(runs.members(outside, modulus, 0, modulus - 1)) == sorted(set(range(modulus)) - residues)
    assert runs.n_in(inside) + runs.n_in(outside) == modulus


def test_conditions_of_too_many_runs_are_refused():
    every_second = runs.of_residues(iter(range(0, 1000, 2)))
    with pytest.raises(OverflowError):
        Span(0, 10**6, 1000, every_second).refine(997, ((0, 1), (3, 4)))
