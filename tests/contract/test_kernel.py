"""What is a kernel: a base class, and any object with the four members."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from kits import FourMembers, Key

from jitwarm import JitKernel, Kernel, Outcome
from jitwarm.authoring import Table
from jitwarm.contract.kernel import kernel_name, require_kernel
from jitwarm.errors import InvalidKernelError


def define(key_type=Key, **options):
    """A `JitKernel` with that `CompileKey`."""

    class Scale(JitKernel, **options):
        CompileKey = key_type

        def dispatch(self, *, n):
            return key_type(n)

        def get_warmup_keys(self, config):
            return []

        def compile(self, key):
            pass

    return Scale


def test_an_object_with_the_four_members_is_a_kernel_without_any_import_of_ours():
    kernel = FourMembers()
    require_kernel(kernel)
    assert isinstance(kernel, JitKernel)
    assert isinstance(kernel, Kernel)
    assert JitKernel not in type(kernel).__mro__


def test_members_may_be_attributes_of_the_object():
    kernel = SimpleNamespace(CompileKey=Key, dispatch=Key, get_warmup_keys=lambda config: [], compile=print)
    require_kernel(kernel)
    assert isinstance(kernel, Kernel)


@pytest.mark.parametrize("member", ["CompileKey", "dispatch", "get_warmup_keys", "compile"])
def test_an_object_that_lacks_a_member_is_none_and_hears_which(member):
    members = {"CompileKey": Key, "dispatch": Key, "get_warmup_keys": print, "compile": print}
    del members[member]
    almost = type("Almost", (), members)()
    assert not isinstance(almost, JitKernel)
    with pytest.raises(InvalidKernelError, match=f"is no kernel: it has no {member}"):
        require_kernel(almost)


def test_a_class_is_refused_with_the_call_that_was_forgotten():
    with pytest.raises(InvalidKernelError) as caught:
        require_kernel(FourMembers)
    assert "FourMembers()" in caught.value.hint


def test_a_subclass_without_compile_cannot_be_made():
    class Half(JitKernel):
        def dispatch(self):
            pass

        def get_warmup_keys(self, config):
            pass

    with pytest.raises(TypeError, match="compile"):
        Half()


def test_an_unfrozen_compile_key_is_refused_where_it_is_defined():
    @dataclass
    class Loose:
        n: int

    with pytest.raises(InvalidKernelError, match="Loose is not frozen"):
        define(Loose)


def test_a_compile_key_that_is_no_dataclass_is_refused_where_it_is_defined():
    with pytest.raises(InvalidKernelError, match="frozen dataclasses"):
        define(int)


def test_an_unfrozen_compile_key_of_a_structural_kernel_is_refused_too():
    @dataclass
    class Loose:
        n: int

    kernel = SimpleNamespace(CompileKey=Loose, dispatch=Loose, get_warmup_keys=print, compile=print)
    with pytest.raises(InvalidKernelError, match="frozen"):
        require_kernel(kernel)


@pytest.mark.parametrize("name", ["when", "max_points"])
def test_a_dispatch_parameter_that_tracing_needs_is_refused_where_it_is_defined(name):
    with pytest.raises(InvalidKernelError, match=f"parameter called {name}") as caught:
        exec(f"""
class Clash(JitKernel):
    CompileKey = Key
    def dispatch(self, *, {name}): ...
    def get_warmup_keys(self, config): ...
    def compile(self, key): ...
""")  # fmt: skip
    assert caught.value.where


def test_a_positional_only_parameter_is_refused_unless_keys_are_listed_by_hand():
    def members():
        def dispatch(self, n, /):
            return Key(n)

        return {"CompileKey": Key, "dispatch": dispatch, "get_warmup_keys": print, "compile": print}

    with pytest.raises(InvalidKernelError, match="'n' is positional-only"):
        type("Positional", (JitKernel,), members())
    assert isinstance(type(JitKernel)("ByHand", (JitKernel,), members(), trace=False)(), JitKernel)


def test_a_kernel_is_called_by_its_name_else_by_its_class():
    assert kernel_name(FourMembers(name="rms_norm")) == "rms_norm"
    assert kernel_name(FourMembers(name=None)) == "FourMembers"
    assert kernel_name(define()()) == "Scale"


def test_warm_are_the_three_outcomes_after_which_nothing_compiles():
    assert {outcome.value for outcome in Outcome if outcome.is_warm} == {"compiled", "loaded", "already_warm"}
    assert {outcome.value for outcome in Outcome if not outcome.is_warm} == {
        "skipped",
        "failed",
        "timed_out",
        "unresolved",
    }


@pytest.mark.parametrize("values", [(1, True), (0, False), (0.0, -0.0), (1, 1.0), ((1,), (True,)), ("1", 1), (None, 0)])
def test_a_table_keeps_equal_keys_of_other_types_apart(values):
    @dataclass(frozen=True)
    class AnyKey:
        value: object

    table = Table()
    for value in values:
        table.put(AnyKey(value), repr(value))
    assert [table.find(AnyKey(value)) for value in values] == [repr(value) for value in values]
