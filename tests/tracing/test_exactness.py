"""Exact keys: none missing, none extra, for dispatch functions as people write them, at a cost that follows the regions."""

import inspect
import itertools

import idioms
import pytest
from idioms import IDIOMS, Key

from jitwarm import Choices, IntRange, encode_key, trace, trace_dispatch
from jitwarm.errors import TracingError
from jitwarm.tracing import explain

SMALL = {"k": Choices(1, 2, 6, 8), "dt": Choices("a", None, True)}


def name_of(function):
    return function.__name__


def brute_force(dispatch, **inputs):
    """Key text -> the points that reach it; a refusal reaches none."""
    found = {}
    for values in itertools.product(*inputs.values()):
        point = dict(zip(inputs, values, strict=True))
        try:
            found.setdefault(encode_key(dispatch(**point)), []).append(point)
        except (AssertionError, ValueError):
            continue
    return found


@pytest.mark.parametrize("dispatch", IDIOMS, ids=name_of)
def test_keys_are_those_of_every_point(dispatch):
    expected = brute_force(dispatch, m=IntRange(1, 2049), **SMALL)
    found = trace(dispatch, m=IntRange(1, 2049), **SMALL)
    assert {encode_key(key) for key in found.keys} == set(expected)
    assert not any("every point" in note for note in found.notes)


@pytest.mark.parametrize("step", [3, 16])
@pytest.mark.parametrize("dispatch", IDIOMS, ids=name_of)
def test_a_domain_may_start_below_zero_and_have_a_step(dispatch, step):
    if dispatch in (idioms.helper_without_source, idioms.occupancy, idioms.bits):
        pytest.skip("divides or shifts in a way that is meant for sizes")
    domain = IntRange(-33, 2000, step)
    assert {encode_key(key) for key in trace_dispatch(dispatch, m=domain, **SMALL)} == set(
        brute_force(dispatch, m=domain, **SMALL)
    )


@pytest.mark.parametrize("dispatch", idioms.BY_REGIONS, ids=name_of)
def test_the_cost_follows_the_regions_and_not_the_domain(dispatch):
    small, large = (trace(dispatch, m=IntRange(1, n + 1), **SMALL).n_evaluations for n in (2**13, 2**20))
    assert large <= 2 * small + 160


@pytest.mark.parametrize("dispatch", IDIOMS, ids=name_of)
def test_every_witness_reaches_its_key(dispatch):
    found = trace(dispatch, m=IntRange(1, 2049), **SMALL)
    for index, key in enumerate(found.keys):
        assert encode_key(dispatch(**found.witness(index))) == encode_key(key)


# --- several large inputs ----------------------------------------------------------------------------------------------


def tiles(*, q, r):
    n_tiles = idioms.cdiv(q, 64) * idioms.cdiv(r, 128)
    return Key(n_tiles >= 132, q > r)


def test_a_predicate_over_two_large_inputs_does_not_enumerate_their_product():
    found = trace(tiles, q=IntRange(1, 8193), r=IntRange(1, 8193), when=lambda q, r: q + r <= 8192)
    assert {(key.a, key.b) for key in found.keys} == {(False, False), (True, False), (True, True), (False, True)}
    assert found.n_evaluations < 1000


def needle_value(*, m):
    return Key(m == 77777)


def needle_residue(*, m):
    return Key(m % 509 == 3 and m > 100_000)


def needle_sum(*, m, n):
    return Key(m + n == 262_143)


def needle_product(*, m, n):
    return Key(m * n >= 10**6 and m + n <= 2000)


def needle_two(*, m, n):
    return Key(idioms.cdiv(m, 64) % 132 == 5 and n % 7 == 3)


@pytest.mark.parametrize(
    "dispatch", [needle_value, needle_residue, needle_sum, needle_product, needle_two], ids=name_of
)
def test_a_key_that_hardly_any_input_reaches_is_found(dispatch):
    inputs = {name: IntRange(1, 2**17 + 1) for name in inspect.signature(dispatch).parameters}
    assert {key.a for key in trace_dispatch(dispatch, **inputs)} == {True, False}


def impossible(*, m, n):
    return Key((m % 16 == 0 and m % 8 == 4) or (m * n > 1000 and m * n <= 500))


def test_a_key_that_no_input_reaches_is_not_reported():
    assert trace_dispatch(impossible, m=IntRange(1, 2**17), n=IntRange(1, 2**17)) == [Key(False)]


def test_an_input_that_does_not_reach_the_key_costs_nothing():
    def dispatch(*, m, unused, other):
        return Key(m > 7)

    found = trace(dispatch, m=IntRange(1, 100), unused=IntRange(0, 10**6), other=Choices(*range(500)))
    assert found.n_evaluations <= 40


# --- rules -------------------------------------------------------------------------------------------------------------


def test_code_without_source_is_handed_plain_values_only():
    handed = []
    namespace = {"handed": handed}
    exec("def stranger(n):\n    handed.append(type(n))\n    return n % 3", namespace)
    stranger = namespace["stranger"]

    def dispatch(*, m):
        return Key(stranger(m))

    assert len(trace_dispatch(dispatch, m=IntRange(1, 50))) == 3
    assert set(handed) == {int}


def test_an_error_in_dispatch_is_told_with_an_input_that_provokes_it():
    def dispatch(*, m):
        return Key(100 // (m - 50))

    with pytest.raises(TracingError, match=r"m=50\) failed: ZeroDivisionError"):
        trace_dispatch(dispatch, m=IntRange(1, 1000))


def test_source_that_was_edited_after_the_import_is_not_trusted(tmp_path, monkeypatch):
    """The text on disk says something else than the code that runs: the code counts."""
    import importlib

    file = tmp_path / "edited_module.py"
    file.write_text("from idioms import Key\ndef dispatch(*, m):\n    return Key(m > 10)\n")
    monkeypatch.syspath_prepend(tmp_path)
    dispatch = importlib.import_module("edited_module").dispatch
    file.write_text("from idioms import Key\ndef dispatch(*, m):\n    return Key(m > 99)\n")
    found = trace(dispatch, m=IntRange(1, 50))
    assert {key.a for key in found.keys} == {True, False}
    assert any("edited after it was imported" in note for note in found.notes)


# --- explain -----------------------------------------------------------------------------------------------------------


def test_regions_are_told_in_the_authors_terms():
    explained = explain(trace(idioms.chain, m=IntRange(1, 8193), k=Choices(1, 8), dt="a"))
    assert [(e.label, e.regions) for e in explained] == [
        ("a=16, b=a", ("m <= 64, k = 1", "m <= 8, k = 8")),
        ("a=64, b=a", ("9 <= m <= 512, k = 8", "65 <= m <= 512, k = 1")),
        ("a=128, b=a", ("m >= 513",)),
    ]
    assert explained[1].witness == {"m": 9, "k": 8, "dt": "a"}


def test_residues_and_conditions_over_several_inputs_are_told():
    by_residue = explain(trace(idioms.residues, m=IntRange(1, 8193), k=1, dt="a"))
    assert by_residue[-1].regions == ("m % 16 = 0",)
    by_fact = explain(trace(tiles, q=IntRange(1, 8193), r=IntRange(1, 8193), when=lambda q, r: q + r <= 8192))
    assert any("n_tiles >= 132, q > r" in region for explanation in by_fact for region in explanation.regions)


@pytest.mark.parametrize("dispatch", [i for i in IDIOMS if i not in (idioms.bits, idioms.wave)], ids=name_of)
def test_every_input_lies_in_exactly_one_region_and_that_is_its_keys(dispatch):
    found = trace(dispatch, m=IntRange(1, 301), **SMALL)
    for text, points in brute_force(dispatch, m=IntRange(1, 301), **SMALL).items():
        for point in points:
            inside = [region for region in found.regions if contains(region, point)]
            assert [encode_key(found.keys[region.key]) for region in inside] == [text]


def contains(region, point):
    return all(space.index(point[name]) in span for name, (space, span) in region.inputs.items())


def guarded_division(*, m):
    """Found by the soak: a divisor whose table holds 0 raised inside the analysis, and a box of one point was lost."""
    if m > 3:
        return Key(m > 9)
    return Key("few", -2 // ((m & 7) or 1) > 9)


def test_a_guarded_division_loses_no_point():
    domain = IntRange(1, 1501, 3)
    assert {encode_key(key) for key in trace_dispatch(guarded_division, m=domain)} == set(
        brute_force(guarded_division, m=domain)
    )


def endless_where_it_cannot_be(*, m):
    if m > 9:
        return Key("many")
    steps = 0
    while m != steps and steps < 10**9:
        steps += 1
    return Key(steps)


def test_a_loop_is_followed_as_far_as_the_inputs_go():
    assert {key.a for key in trace_dispatch(endless_where_it_cannot_be, m=IntRange(0, 5000))} == {"many", *range(10)}


def signs(*, m):
    """A zero's sign was lost when its table was repeated, and with it a key."""
    return Key((m % 2 - 1) * 0.0 * (m % 3 + 1.0))


def test_zeros_of_both_signs_are_two_keys():
    assert {repr(key.a) for key in trace_dispatch(signs, m=IntRange(1, 500))} == {"0.0", "-0.0"}
