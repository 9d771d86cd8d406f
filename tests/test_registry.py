"""Plugins: whatever one of them does, it is refused by name with its reason, and all others go on."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from kits import GOOD, FourMembers, Key, Plugin, Workshop

from jitwarm import Backend, Target, WarmupConfig, hookimpl
from jitwarm.registry import Registry


class RaisesInHook:
    @hookimpl
    def jitwarm_kernels(self, config):
        return 1 / 0


class Exits:
    @hookimpl
    def jitwarm_kernels(self):
        sys.exit("no driver")


class RaisesWhileListing:
    @hookimpl
    def jitwarm_kernels(self):
        yield FourMembers()
        raise RuntimeError("no driver")


class Misspelt:
    @hookimpl
    def jitwarm_kernals(self):
        return []


class UnknownArgument:
    @hookimpl
    def jitwarm_kernels(self, configuration):
        return []


class Wrapper:
    @hookimpl(wrapper=True)
    def jitwarm_compile(self):
        return (yield)


class OldWrapper:
    @hookimpl(hookwrapper=True)
    def jitwarm_kernels(self):
        yield


class Unmarked:
    def jitwarm_kernels(self):
        return []


class NoHook:
    pass


class ReturnsNothing:
    @hookimpl
    def jitwarm_kernels(self):
        pass


class RaisesInBackends:
    @hookimpl
    def jitwarm_backends(self):
        raise OSError("libhip.so is missing")


class TwinBackends:
    @hookimpl
    def jitwarm_backends(self):
        return [Workshop(), Workshop()]


def module(source):
    made = ModuleType("plugin_module")
    exec(source, vars(made))
    return made


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (RaisesInHook(), "ZeroDivisionError: division by zero"),
        (Exits(), "no driver"),
        (RaisesWhileListing(), "RuntimeError: no driver"),
        (Misspelt(), "there is no hook jitwarm_kernals (did you mean jitwarm_kernels?)"),
        (UnknownArgument(), "configuration"),
        (Wrapper(), "jitwarm_compile is a hook wrapper"),
        (OldWrapper(), "jitwarm_kernels is a hook wrapper"),
        (Unmarked(), "jitwarm_kernels is not marked (put @jitwarm.hookimpl on it)"),
        (NoHook(), "it implements no hook"),
        (ReturnsNothing(), "must return an iterable, not None"),
        (RaisesInBackends(), "OSError: libhip.so is missing"),
        (TwinBackends(), "backend 'workshop' is there already"),
        (Plugin, "point it to an instance"),
        (Plugin(SimpleNamespace(name="odd")), "odd (SimpleNamespace) is no kernel: it has no CompileKey, dispatch"),
        (Plugin(FourMembers), "FourMembers is a class (yield an instance: FourMembers())"),
        (Plugin(FourMembers(), FourMembers()), "two kernels of one id, bad:four (give one of them another `name`)"),
        (Plugin(type("Loose", (FourMembers,), {"CompileKey": int})()), "compile keys are frozen dataclasses"),
        (Plugin(type("Loose", (FourMembers,), {"CompileKey": None})()), "compile keys are frozen dataclasses"),
    ],
)
def test_a_broken_plugin_is_refused_by_name_with_its_reason_and_the_others_go_on(plugin, reason):
    made = Registry()
    made.add("a_good", module(GOOD), "a_good 1.0")
    made.add("bad", plugin, "bad 2.0")
    made.add("z_good", module(GOOD), "z_good 1.0")
    kernels = made.kernels(WarmupConfig(), Target("cuda", "90"))
    assert [kernel.id for kernel in kernels] == ["a_good:four", "z_good:four"]
    assert [(refused.name, refused.distribution) for refused in made.refused] == [("bad", "bad 2.0")]
    assert reason in made.refused[0].reason
    assert "\n" not in made.refused[0].reason
    assert "bad" not in made.plugins


def test_a_kernel_knows_its_plugin_its_distribution_and_its_backend():
    made = Registry()
    made.add("site", Plugin(FourMembers(), FourMembers(name="own", backend="workshop")), "site-kernels 1.2")
    four, own = made.kernels(WarmupConfig(), Target("cuda", "90"))
    assert (four.id, four.plugin, four.distribution, four.backend) == ("site:four", "site", "site-kernels 1.2", None)
    assert own.backend == "workshop"


def test_kernels_are_asked_for_the_configuration_and_target_of_the_run():
    class Asked:
        @hookimpl
        def jitwarm_kernels(self, config, target):
            return [FourMembers(name=f"{target}/{config.max_num_seqs}")]

    made = Registry()
    made.add("site", Asked())
    kernels = made.kernels(WarmupConfig(max_num_seqs=3), Target("hip", "gfx942"))
    assert [kernel.id for kernel in kernels] == ["site:hip:gfx942/3"]


def test_a_name_that_is_taken_is_refused_with_the_name_of_its_owner():
    made = Registry()
    made.add("site", Plugin(FourMembers(name="first")), "first 1.0")
    made.add("site", Plugin(FourMembers(name="second")), "second 1.0")
    assert [kernel.id for kernel in made.kernels(WarmupConfig(), Target("cuda", "90"))] == ["site:first"]
    assert [(refused.distribution, refused.reason) for refused in made.refused] == [
        ("second 1.0", "its name 'site' is taken by first 1.0")
    ]


def test_a_module_that_imports_a_package_called_jitwarm_something_is_no_broken_plugin():
    made = Registry()
    made.add("site", module("import types\njitwarm_something = types.ModuleType('jitwarm_something')\n" + GOOD))
    assert made.refused == []


def test_a_plugin_that_is_refused_when_it_is_loaded_is_asked_nothing_later():
    class Half(Misspelt):
        @hookimpl
        def jitwarm_warmup_keys(self):
            return [Key(1)]

    made = Registry()
    made.add("half", Half())
    assert made.first_answer("jitwarm_warmup_keys", kernel=None, kernel_id="", config=None) is None


def test_a_plugin_that_is_refused_when_it_lists_kernels_leaves_no_hook_and_no_backend_behind():
    class Half:
        @hookimpl
        def jitwarm_backends(self):
            return [Workshop()]

        @hookimpl
        def jitwarm_kernels(self):
            raise RuntimeError

        @hookimpl
        def jitwarm_warmup_keys(self):
            return [Key(1)]

    made = Registry()
    made.add("half", Half())
    assert made.kernels(WarmupConfig(), Target("cuda", "90")) == []
    assert made.first_answer("jitwarm_warmup_keys", kernel=None, kernel_id="", config=None) is None
    assert made.backends == []


def test_only_backends_are_backends():
    class Odd:
        @hookimpl
        def jitwarm_backends(self):
            return ["triton"]

    made = Registry()
    made.add("odd", Odd())
    assert "no jitwarm.Backend" in made.refused[0].reason


def test_our_own_backends_come_in_by_entry_point_whatever_is_admitted():
    made = Registry(admits=lambda name: False)
    made.load_builtin()
    made.load_installed()
    assert set(made.plugins) == {"triton", "cutedsl", "tilelang"}
    assert {backend.name for backend in made.backends} == {"triton", "cutedsl", "tilelang"}
    assert all(isinstance(backend, Backend) for backend in made.backends)
    assert {plugin.distribution.split()[0] for plugin in made.plugins.values()} == {"jitwarm"}


def answered(*policies):
    """What the registry answers where each policy is asked, and which policies raised."""
    errors = []
    made = Registry(on_policy_error=lambda *error: errors.append(error))
    made.add_builtin_policy(Policy("built-in", trylast=True))
    for policy in policies:
        made.add(policy.name, policy)
    assert made.refused == []
    return made.first_answer("jitwarm_warmup_keys", kernel=None, kernel_id="p:k", config=None), errors


class Policy:
    """Answers its name, None, or an error; the policies of one test share `calls`."""

    def __new__(cls, name, answer=..., calls=None, **options):
        class Made:
            @hookimpl(**options)
            def jitwarm_warmup_keys(self, kernel_id):
                if calls is not None:
                    calls.append(name)
                if isinstance(answer, Exception):
                    raise answer
                return name if answer is ... else answer

        made = Made()
        made.name = name
        return made


def test_the_last_registered_policy_is_asked_first_and_the_built_in_one_last():
    calls = []
    given = [Policy(name, None, calls) for name in ("first", "second", "third")]
    assert answered(*given) == ("built-in", [])
    assert calls == ["third", "second", "first"]


def test_the_first_answer_that_is_not_none_wins_and_nobody_else_is_asked():
    calls = []
    assert answered(Policy("first", calls=calls), Policy("second", [], calls), Policy("third", None, calls)) == ([], [])
    assert calls == ["third", "second"]


def test_a_policy_that_raises_is_reported_by_name_and_the_next_one_is_asked():
    error = RuntimeError("site database is down")
    assert answered(Policy("first"), Policy("second", error)) == ("first", [("second", "jitwarm_warmup_keys", error)])


def test_an_error_of_the_built_in_policy_is_the_callers():
    made = Registry()
    made.add_builtin_policy(Policy("built-in", ValueError("no keys"), trylast=True))
    with pytest.raises(ValueError, match="no keys"):
        made.first_answer("jitwarm_warmup_keys", kernel=None, kernel_id="", config=None)


def test_a_policy_that_asks_to_be_last_is_still_asked_before_the_built_in_one():
    assert answered(Policy("modest", trylast=True)) == ("modest", [])


def test_a_plugin_called_built_in_does_not_unseat_the_built_in_policy():
    made = Registry()
    made.add_builtin_policy(Policy("ours", trylast=True))
    made.add("built-in", Policy("theirs", None))
    assert made.first_answer("jitwarm_warmup_keys", kernel=None, kernel_id="", config=None) == "ours"
