"""`check_plugin` on a plugin that keeps every promise, and on one for each promise that breaks it."""

import importlib
import os
import sys
import unittest

import check_table
import kits
import pytest
from bench_plugin import Kernel

from jitwarm import WarmupConfig
from jitwarm.errors import PluginCheckError, SettingsError, TargetError, UsageError
from jitwarm.testing import check_plugin, plugin_checks
from jitwarm.testing.rules import RULES

GOOD = "from bench_plugin import *\njitwarm_kernels = yields(Kernel())\n"
COMPILING = [
    "every_key_compiles",
    "second_run_compiles_nothing",
    "launches_nothing",
    "compiling_leaves_the_process_alone",
]
# What is wrong -> (the check that must fail, what it says, the module after its first line). No key is compiled for these.
UNLISTED = {
    "it cannot be imported": ("loads", "No module named 'libcudart'", "import libcudart\n"),
    "its hook is misspelt": (
        "loads",
        "did you mean jitwarm_kernels?",
        "@hookimpl\ndef jitwarm_kernel(config):\n    return [Kernel()]\n",
    ),
    "it yields no kernel objects": ("loads", "is no kernel", "jitwarm_kernels = yields(object())\n"),
    "two kernels of one name": (
        "kernel_names_are_unique",
        "copy is there more than once",
        "jitwarm_kernels = yields(Kernel(), Kernel())\n",
    ),
    "it imports a compiler": (
        "discovery_is_light",
        "importing the plugin imports triton",
        "import triton\njitwarm_kernels = yields(Kernel())\n",
    ),
    "it asks torch for the GPU": (
        "discovery_is_light",
        "torch's CUDA is asked for at",
        """
@hookimpl
def jitwarm_kernels():
    import torch
    try:
        torch.zeros(1, device="cuda")
    except Exception:
        pass
    return [Kernel()]
""",
    ),
    "it starts a thread": (
        "discovery_starts_no_thread",
        "it starts ticker",
        """
import threading
threading.Thread(target=threading.Event().wait, name="ticker", daemon=True).start()
jitwarm_kernels = yields(Kernel())
""",
    ),
    "it has no kernel": ("lists_keys", "it yields no kernel", "jitwarm_kernels = yields()\n"),
    "it has no key": (
        "lists_keys",
        "no kernel of it has a key for this configuration",
        """
class Empty(Kernel):
    def get_warmup_keys(self, config):
        return []
jitwarm_kernels = yields(Empty())
""",
    ),
    "its list raises": (
        "lists_keys",
        "wrong:copy: ZeroDivisionError",
        """
class Raises(Kernel):
    def get_warmup_keys(self, config):
        return [Key(1 // (config.max_num_seqs - 256), "float32")]
jitwarm_kernels = yields(Raises())
""",
    ),
    "a key holds a list": (
        "keys_are_data",
        "block",
        """
class Lists(Kernel):
    def get_warmup_keys(self, config):
        return [Key([16], "float32")]
jitwarm_kernels = yields(Lists())
""",
    ),
    "a key changes what it is given": (
        "keys_come_back",
        "comes back as",
        """
@dataclass(frozen=True)
class Doubled:
    block: int
    def __post_init__(self):
        object.__setattr__(self, "block", 2 * self.block)
class Changes(Kernel):
    CompileKey = Doubled
    def get_warmup_keys(self, config):
        return [Doubled(16)]
jitwarm_kernels = yields(Changes())
""",
    ),
    "the list grows": (
        "listing_is_repeatable",
        "the second call lists 2 keys",
        """
class Grows(Kernel):
    n = 0
    def get_warmup_keys(self, config):
        self.n += 1
        return [Key(16 * i, "float32") for i in range(1, self.n + 1)]
jitwarm_kernels = yields(Grows())
""",
    ),
    "the order follows the hash": (
        "keys_are_stable",
        "another process lists the same keys in another order",
        """
class Hashed(Kernel):
    def get_warmup_keys(self, config):
        return [Key(16, dtype) for dtype in {f"dtype{n}" for n in range(50)}]
jitwarm_kernels = yields(Hashed())
""",
    ),
    "a key holds the process id": (
        "keys_are_stable",
        "are not of both",
        """
class OfProcess(Kernel):
    def get_warmup_keys(self, config):
        return [Key(os.getpid(), "float32")]
jitwarm_kernels = yields(OfProcess())
""",
    ),
    "dispatch chooses otherwise once keys are listed": (
        "dispatch_is_traced_exactly",
        "gives [block=512, dtype=",
        """
LISTED = []
class Later(Kernel):
    def dispatch(self, *, n, dtype):
        return Key(512, dtype) if LISTED and n > 900 else super().dispatch(n=n, dtype=dtype)
    def get_warmup_keys(self, config):
        keys = super().get_warmup_keys(config)
        LISTED.append(True)
        return keys
jitwarm_kernels = yields(Later())
""",
    ),
    "dispatch remembers its calls": (
        "dispatch_is_traced_exactly",
        "n=1, dtype='bfloat16' was traced to [block=",
        """
CALLS = []
class Remembers(Kernel):
    def dispatch(self, *, n, dtype):
        CALLS.append(n)
        return Key(len(CALLS) // 100, dtype)
jitwarm_kernels = yields(Remembers())
""",
    ),
    "another function is traced than the one that is launched": (
        "dispatch_takes_what_is_traced",
        "dispatch(n=1, dtype='bfloat16') gives [block=16, dtype=bfloat16], but [block=32, dtype=bfloat16] is listed for it",
        """
class Two(Kernel):
    def choose(self, *, n, dtype):
        return Key(32, dtype)
    def get_warmup_keys(self, config):
        return trace_dispatch(self.choose, n=1, dtype="bfloat16")
jitwarm_kernels = yields(Two())
""",
    ),
    "dispatch has another parameter than what is traced": (
        "dispatch_takes_what_is_traced",
        "missing 1 required keyword-only argument: 'n'",
        """
class Renamed(Kernel):
    def choose(self, *, num_tokens, dtype):
        return Key(16, dtype)
    def get_warmup_keys(self, config):
        return trace_dispatch(self.choose, num_tokens=1, dtype="bfloat16")
jitwarm_kernels = yields(Renamed())
""",
    ),
}
# The same, where keys must be compiled for it.
COMPILED = {
    "a key does not compile": (
        "every_key_compiles",
        "wrong:copy [block=128, dtype=bfloat16] failed: ValueError: no tile of 128",
        """
class Fails(Kernel):
    def compile(self, key):
        if key.block == 128:
            raise ValueError("no tile of 128")
        super().compile(key)
jitwarm_kernels = yields(Fails())
""",
    ),
    "a key kills its compiler": (
        "every_key_compiles",
        "killed by SIGSEGV",
        """
import signal
class Dies(Kernel):
    def compile(self, key):
        os.kill(os.getpid(), signal.SIGSEGV)
jitwarm_kernels = yields(Dies())
""",
    ),
    "nothing is kept": (
        "second_run_compiles_nothing",
        "wrong:copy [block=16, dtype=bfloat16] was built again",
        """
class Forgets(Kernel):
    def compile(self, key):
        Bench.count.add_compile()
jitwarm_kernels = yields(Forgets())
""",
    ),
    "what is kept is named after the process": (
        "second_run_compiles_nothing",
        "was built again",
        """
class OfProcess(Kernel):
    def compile(self, key):
        os.environ["BENCH_CACHE_DIR"] += f"/{os.getpid()}"
        try:
            super().compile(key)
        finally:
            os.environ["BENCH_CACHE_DIR"] = os.environ["BENCH_CACHE_DIR"].rpartition("/")[0]
jitwarm_kernels = yields(OfProcess())
""",
    ),
    "compile launches, in a try": (
        "launches_nothing",
        "the Triton kernel add is launched at",
        """
class Launches(Kernel):
    def compile(self, key):
        import wrong_triton
        try:
            wrong_triton.add[(1,)](1, 2)
        except Exception:
            pass
        super().compile(key)
jitwarm_kernels = yields(Launches())
""",
    ),
    "compile allocates on the GPU": (
        "launches_nothing",
        "torch's CUDA is asked for at",
        """
class Allocates(Kernel):
    def compile(self, key):
        import torch
        torch.empty(1, device="cuda")
        super().compile(key)
jitwarm_kernels = yields(Allocates())
""",
    ),
    "compile changes directory, umask and environment": (
        "compiling_leaves_the_process_alone",
        "the umask was",
        """
os.environ.setdefault("WRONG", "before")
class Changes(Kernel):
    def compile(self, key):
        super().compile(key)
        os.chdir("/")
        os.umask(0)
        os.environ["WRONG"] = "after"
jitwarm_kernels = yields(Changes())
""",
    ),
}
BY_HAND = """
class Mixed(Kernel):
    def get_warmup_keys(self, config):
        return [*super().get_warmup_keys(config), Key(256, "float32")]
jitwarm_kernels = yields(Mixed())
"""
NEEDS_MODEL = """
class Live(Kernel):
    def get_warmup_keys(self, config):
        return config.require_model()
jitwarm_kernels = yields(Live())
"""
UNRESOLVED = """
from jitwarm import Unresolved
class NoTool(Kernel):
    def compile(self, key):
        raise Unresolved("toolchain missing: no bench")
jitwarm_kernels = yields(NoTool())
"""
TRITON = "import triton\n@triton.jit\ndef add(a, b):\n    pass\n"


@pytest.fixture
def wrong(tmp_path, monkeypatch):
    """Install a plugin of the name `wrong`, and check it."""
    monkeypatch.syspath_prepend(tmp_path / "site")

    def check(source, **arguments):
        kits.install(tmp_path / "site", "wrong", "from bench_plugin import *\n" + source)
        (tmp_path / "site" / "wrong_triton.py").write_text(TRITON)
        return check_plugin("wrong", **arguments)

    return check


def test_a_good_plugin_passes_every_check(wrong):
    found = wrong("jitwarm_kernels = yields(Kernel())\n")
    assert {check.name: check.status.value for check in found} == dict.fromkeys(RULES, "passed"), str(found)
    assert found.require(strict=True) is found


@pytest.mark.parametrize(("name", "says", "source"), UNLISTED.values(), ids=list(UNLISTED))
def test_what_is_wrong_before_a_compile_is_found(wrong, name, says, source):
    check = wrong(source, skip=COMPILING)[name]
    assert (check.status.value, says in check.detail) == ("failed", True), str(check)
    assert check.hint


@pytest.mark.parametrize(("name", "says", "source"), COMPILED.values(), ids=list(COMPILED))
def test_what_is_wrong_with_a_compile_is_found(wrong, name, says, source):
    check = wrong(source)[name]
    expected = "warned" if name == "compiling_leaves_the_process_alone" else "failed"
    assert (check.status.value, says in check.detail) == (expected, True), str(check)
    assert check.hint


def test_every_check_is_seen_failing():
    """The two tables are whole: a new rule needs a plugin that breaks it."""
    assert {name for name, _, _ in (UNLISTED | COMPILED).values()} == set(RULES)


def test_keys_by_hand_beside_traced_ones_are_a_warning(wrong):
    found = wrong(BY_HAND, skip=COMPILING)
    check = found["dispatch_is_traced_exactly"]
    assert (check.status.value, check.detail) == (
        "warned",
        "no input is known that reaches 1 key of wrong:copy, beside the traced ones",
    )
    assert found.is_sound
    with pytest.raises(PluginCheckError, match="dispatch_is_traced_exactly"):
        found.require(strict=True)


def test_a_plugin_that_needs_the_model_is_skipped_with_its_reason(wrong):
    found = wrong(NEEDS_MODEL, skip=COMPILING)
    assert found["lists_keys"].status.value == "skipped"
    assert "needs the model" in found["lists_keys"].detail
    with pytest.raises(unittest.SkipTest, match="needs the model"):
        found["lists_keys"].require()


def test_keys_of_a_missing_toolchain_are_skipped_with_its_reason(wrong):
    check = wrong(UNRESOLVED)["every_key_compiles"]
    assert (check.status.value, "toolchain missing: no bench" in check.detail) == ("skipped", True), str(check)


def test_a_plugin_that_hangs_is_named_and_ended(wrong):
    found = wrong("import time\ntime.sleep(3600)\n", timeout_s=10.0)
    assert found["loads"].status.value == "failed"
    assert "took longer than 10 s" in found["loads"].detail


def test_require_says_everything_at_once(wrong):
    found = wrong("jitwarm_kernels = yields(Kernel(), Kernel())\n", skip=COMPILING)
    with pytest.raises(PluginCheckError) as caught:
        found.require()
    assert "plugin wrong breaks its contract" in str(caught.value)
    assert "kernel_names_are_unique" in str(caught.value)
    assert "-> give one of them another `name`" in str(caught.value)


def test_a_module_that_is_not_installed_can_be_checked(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "loose_kernels.py").write_text(GOOD)
    found = check_plugin(importlib.import_module("loose_kernels"))
    assert found.plugin == "loose_kernels"
    assert found.is_sound, str(found)
    assert found["every_key_compiles"].detail == "4 keys"


def test_another_plugins_backend_is_there_where_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    kits.install(tmp_path, "benches", "from bench_plugin import jitwarm_backends\n")
    kits.install(tmp_path, "copies", "from bench_plugin import Kernel, yields\njitwarm_kernels = yields(Kernel())\n")
    assert check_plugin("copies", needs=["benches"]).is_sound
    assert not check_plugin("copies").is_sound


def test_what_no_other_process_can_import_is_refused():
    with pytest.raises(UsageError, match="cannot be imported in another process"):
        check_plugin(Kernel())


def test_a_plugin_that_is_not_installed_is_told_so():
    found = check_plugin("nowhere")
    assert "no installed package has an entry point 'nowhere'" in found["loads"].detail
    assert [check.name for check in found if check.status.value == "failed"] == ["loads"]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"skip": ["every_key_compile"]}, UsageError, "did you mean 'every_key_compiles'"),
        ({"target": "sm_90"}, TargetError, "cuda:90"),
        ({"config": {"max_num_seq": 1}}, SettingsError, "did you mean 'max_num_seqs'"),
    ],
)
def test_a_slip_in_an_argument_is_told_at_once(arguments, error, says):
    with pytest.raises(error, match=says):
        check_plugin("nowhere", **arguments)


def test_this_process_is_left_as_it_was(wrong):
    before = dict(os.environ), set(sys.modules)
    wrong("import triton\njitwarm_kernels = yields(Kernel())\n", skip=COMPILING)
    assert dict(os.environ) == before[0]
    assert not {"triton", "torch", "wrong"} & (set(sys.modules) - before[1])


def test_the_checks_one_by_one_are_made_once_and_not_before_they_are_asked_for(wrong, tmp_path):
    wrong("jitwarm_kernels = yields(Kernel(), Kernel())\n", skip=list(RULES))
    checks = plugin_checks("wrong", skip=COMPILING, config=WarmupConfig(max_num_seqs=8))
    assert list(map(str, checks)) == list(RULES)
    with pytest.raises(PluginCheckError, match="copy is there more than once"):
        checks[1].require()
    (tmp_path / "site" / "wrong.py").unlink()  # what is asked now is not looked at again
    with pytest.raises(unittest.SkipTest, match="left out, as asked"):
        checks[-1].require()


def test_the_table_of_the_page_is_up_to_date():
    assert check_table.table() in check_table.PAGE.read_text(), "python tests/support/check_table.py writes it"
