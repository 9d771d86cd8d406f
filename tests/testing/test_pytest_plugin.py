"""The pytest plugin in pytest processes of its own, through its entry point, with real compilers."""

import importlib.util
import json
import os
import sys

import kits
import pytest

# Nothing is imported here: pytester forgets each module that is, and an extension module cannot be imported twice.
IS_COMPLETE = all(importlib.util.find_spec(name) for name in ("triton", "cutlass", "tilelang"))
pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
pytest_plugins = ["pytester"]

KERNELS = """
import contextlib, threading
import triton, triton.language as tl
from jitwarm.testing import NoDeviceError

@triton.jit
def add(x_ptr, n, BLOCK: tl.constexpr):
    tl.store(x_ptr + tl.arange(0, BLOCK), n)

class Tensor:
    dtype = "fp32"
    def data_ptr(self):
        return 0

def launch(n, BLOCK=16):
    with contextlib.suppress(NoDeviceError):  # without a GPU it ends at the launch itself
        add[(1,)](Tensor(), n, BLOCK)

def in_a_thread(*args):
    thread = threading.Thread(target=launch, args=args)
    thread.start()
    thread.join()
"""
# What a machine with a GPU brings of itself: something to compile for.
CONFTEST = """
import pytest

@pytest.fixture(autouse=True, scope="session")
def device():
    from jitwarm import Target
    from jitwarm.backends._triton import TritonBackend
    with TritonBackend().pin(Target("cuda", "90")):
        yield
"""
AGAIN = """
def pytest_runtest_protocol(item, nextitem):
    from _pytest.runner import runtestprotocol
    for _ in range(2):
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        runtestprotocol(item, nextitem=nextitem)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""
PLUGIN = """
from jitwarm import IntClass, TensorSpec, TritonKernel, hookimpl
from dataclasses import dataclass
import my_kernels

class Add(TritonKernel):
    kernel = my_kernels.add
    fixed = {"x_ptr": TensorSpec("float32", ("n",)), "BLOCK": 16}
    @dataclass(frozen=True)
    class CompileKey:
        n: IntClass
    def dispatch(self, *, n):
        return self.CompileKey(IntClass.of(n))
    def get_warmup_keys(self, config):
        return [self.dispatch(n=32)]
    def launch_args(self, key):
        return {"n": key.n}

@hookimpl
def jitwarm_kernels():
    return [Add()]
"""


@pytest.fixture
def tests(pytester, monkeypatch):
    """Run pytest over a test file in a process of its own; files beside it may be given."""
    site = pytester.path / "site"
    info = site / "jitwarm_as_installed-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: jitwarm-as-installed\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pytest11]\njitwarm = jitwarm.testing.pytest_plugin\n")
    kits.install(site, "mine", PLUGIN)
    (site / "my_kernels.py").write_text(KERNELS)
    path = os.pathsep.join([str(site), *filter(None, sys.path)])
    monkeypatch.setenv("PYTHONPATH", path)
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(pytester.path / "cache"))
    monkeypatch.setenv("TILELANG_CACHE_DIR", str(pytester.path / "cache"))
    pytester.makeconftest(CONFTEST)

    def run(source, *arguments):
        pytester.makepyfile(test_it="import pytest\nfrom my_kernels import launch, in_a_thread\n" + source)
        return pytester.runpytest_subprocess(
            "-p", "no:cacheprovider", "-W", "error", "-W", "ignore:TRITON_DEFAULT", *arguments
        )

    return run


# --- the marker --------------------------------------------------------------------------------------------------------


def test_a_compile_fails_the_test_and_is_told_with_function_specialization_and_call_site(tests):
    result = tests("@pytest.mark.no_cold_compiles\ndef test_cold():\n    launch(32)\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "1 cold compile",
            "triton: my_kernels:add compiled, * s",
            "    for x_ptr: [*]fp32, aligned, n: i32, multiple of 16, BLOCK: 16, num_warps: 4*",
            "    asked for at *my_kernels.py:* in launch",
            "  hint: warm it before the test, e.g. in a fixture, or allow it: allow='my_kernels:add'",
        ]
    )


def test_the_same_warmed_passes_and_another_specialization_fails(tests):
    result = tests("""
@pytest.fixture(scope="module", autouse=True)
def warm():
    launch(32)

pytestmark = pytest.mark.no_cold_compiles

def test_warm():
    launch(32)
    launch(64)

def test_cold():
    launch(33)
""")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["    for * n: i32, BLOCK*"])


def test_a_compile_in_a_thread_counts_and_two_are_told(tests):
    result = tests("@pytest.mark.no_cold_compiles\ndef test_cold():\n    in_a_thread(32)\n    launch(33)\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["2 cold compiles", "triton: my_kernels:add compiled*", "triton: my_kernels:add compiled*"]
    )


def test_functions_are_allowed_by_glob_of_the_module_and_of_the_test_together(tests):
    result = tests("""
pytestmark = pytest.mark.no_cold_compiles(allow="other:*")

@pytest.mark.no_cold_compiles(allow=["my_kernels:a*"])
def test_allowed():
    launch(32)

def test_not_allowed():
    launch(33)
""")
    result.assert_outcomes(passed=1, failed=1)


def test_a_misspelt_argument_ends_the_session_with_the_right_ones(tests):
    result = tests("@pytest.mark.no_cold_compiles(allowed='x')\ndef test_it():\n    pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it: no_cold_compiles takes allow and allow_reloads by name, not allowed"])


def test_a_test_that_fails_by_itself_keeps_its_error_and_shows_what_compiled(tests):
    result = tests("@pytest.mark.no_cold_compiles\ndef test_both():\n    launch(32)\n    assert 1 == 2\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E       assert 1 == 2", "* jitwarm *", "1 cold compile", "triton: my_kernels:add compiled*"]
    )


def test_what_is_found_on_disk_is_not_warm_unless_that_is_allowed(tests):
    """Else a test would pass where it was run before, and fail on a new machine."""
    source = "@pytest.mark.no_cold_compiles{}\ndef test_it():\n    launch(32)\n"
    tests(source.format("")).assert_outcomes(failed=1)
    again = tests(source.format(""))
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(
        ["triton: my_kernels:add was loaded from disk (on a machine with an empty cache it compiles)*"]
    )
    tests(source.format("(allow_reloads=True)")).assert_outcomes(passed=1)


@pytest.mark.skipif(not IS_COMPLETE, reason="needs all three compilers")
def test_cutedsl_and_tilelang_count_when_they_are_imported_in_the_test_itself(tests):
    result = tests("""
import sys

@pytest.mark.no_cold_compiles
def test_cutedsl():
    assert "cutlass" not in sys.modules
    from cute_kernels import Scale
    Scale().compile(Scale.CompileKey())

@pytest.mark.no_cold_compiles
def test_tilelang():
    assert "tilelang" not in sys.modules
    from jitwarm import Target
    from jitwarm.backends._tilelang import TileLangBackend
    from tilelang_kernels import lazy_add
    with TileLangBackend().pin(Target("cuda", "90")):
        lazy_add(N=384)
""")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "cutedsl: cute_kernels:scale compiled*",
            "*test_it.py:* in test_cutedsl",
            "tilelang: tilelang_kernels:lazy_add compiled*",
        ]
    )


def test_a_test_that_is_run_again_begins_anew(tests, pytester):
    """As plugins do that repeat what has failed: the first run compiles, the second is warm."""
    pytester.makeconftest(CONFTEST + AGAIN)
    result = tests("@pytest.mark.no_cold_compiles\ndef test_it():\n    launch(32)\n")
    result.assert_outcomes(failed=1, passed=1)


# --- the fixtures ------------------------------------------------------------------------------------------------------


def test_the_fixture_is_the_marker_with_a_part_in_which_the_test_warms(tests):
    result = tests("""
def test_warm(no_cold_compiles):
    with no_cold_compiles.warming():
        launch(32)
    launch(64)
    assert not no_cold_compiles.compiles

def test_cold(no_cold_compiles):
    launch(33)
    assert [c.function for c in no_cold_compiles.compiles] == ["my_kernels:add"]
""")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["1 cold compile"])


def test_jitwarm_warm_warms_an_installed_plugin_and_leaves_no_variable_behind(tests):
    result = tests("""
import os

@pytest.mark.no_cold_compiles
def test_warm(jitwarm_warm):
    report = jitwarm_warm("mine:*", target="cuda:90")
    assert report.outcomes == {"compiled": 1}
    launch(48)

@pytest.mark.no_cold_compiles
def test_cold(jitwarm_warm):
    jitwarm_warm("mine:*", target="cuda:90")
    launch(49)

def test_after():
    assert os.environ["TRITON_CACHE_DIR"].endswith("cache")
""")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*test_it.py::test_cold*"])


# --- the report --------------------------------------------------------------------------------------------------------

REPORTED = """
def test_one():
    launch(32)

def test_two():
    launch(32)
    launch(33)

def test_none():
    pass
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2", "--dist", "loadfile")], ids=["alone", "xdist"])
def test_the_report_names_functions_and_the_tests_that_caused_their_compiles(tests, pytester, workers):
    result = tests(REPORTED, "--jitwarm-report=found.json", *workers)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            "*= jitwarm: 2 compiles, * s =*",
            "backend  function        compiles  reloads  seconds  tests",
            "triton   my_kernels:add         2        0 * test_it.py::test_one, test_it.py::test_two",
            "written to *found.json",
        ]
    )
    found = json.loads((pytester.path / "found.json").read_text())
    assert (found["n_compiles"], found["n_reloads"], len(found["functions"])) == (2, 0, 1)
    assert [one["test"] for one in found["compiles"]] == ["test_it.py::test_one", "test_it.py::test_two"]
    assert found["compiles"][1]["specialization"]["n"] == "i32"
    assert found["seconds"] > 0


def test_the_report_alone_writes_no_file_and_says_when_there_was_nothing(tests, pytester):
    result = tests("def test_it():\n    pass\n", "--jitwarm-report")
    result.stdout.fnmatch_lines(["*= jitwarm: 0 compiles, 0.0 s =*", "no kernel was compiled*"])
    assert not list(pytester.path.glob("**/*.json"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--jitwarm-report", "test_it.py"], "would write to test_it.py, which are tests"),
        (["--jitwarm-report=nowhere/found.json"], "there is no directory"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tests, given, says):
    result = tests("def test_it():\n    pass\n", *given)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{says}*"])


# --- when it is not used -----------------------------------------------------------------------------------------------

LOADED = """
import sys

def test_loaded():
    names = [name for name in sys.modules if name.partition(".")[0] in {"jitwarm", "torch", "triton", "cutlass", "tilelang"}]
    assert sorted(names) == %r
"""


def test_an_unused_plugin_is_two_small_modules_and_no_compiler(tests, pytester):
    pytester.path.joinpath("conftest.py").unlink()
    (pytester.path / "site" / "my_kernels.py").write_text("launch = in_a_thread = None\n")
    own = ["jitwarm", "jitwarm.testing", "jitwarm.testing.pytest_plugin"]
    tests(LOADED % own).assert_outcomes(passed=1)
    tests(LOADED % [], "-p", "no:jitwarm").assert_outcomes(passed=1)


def test_without_the_plugin_neither_option_nor_marker_is_there(tests):
    result = tests("def test_it():\n    pass\n", "-p", "no:jitwarm", "--jitwarm-report")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result = tests("@pytest.mark.no_cold_compiles\ndef test_it():\n    pass\n", "-p", "no:jitwarm", "--strict-markers")
    result.stdout.fnmatch_lines(["*'no_cold_compiles' not found in `markers`*"])


def test_pytest_does_not_mind_that_jitwarm_was_imported_before_it(tests, pytester):
    """A plugin's whole package is marked for the rewriting of assertions, and pytest warns where that comes too late."""
    info = pytester.path / "site" / "jitwarm_as_installed-1.dist-info"
    info.joinpath("RECORD").write_text("jitwarm/__init__.py,,\njitwarm/testing/pytest_plugin.py,,\n")
    pytester.makepyfile(test_it="def test_it():\n    pass\n")
    main = "import sys, jitwarm, pytest; sys.exit(pytest.main(['-W', 'error', '-p', 'no:cacheprovider', 'test_it.py']))"
    assert pytester.run(sys.executable, "-c", main).ret == 0
