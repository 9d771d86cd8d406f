"""What importing costs: no compiler, no directory, whatever name is asked for."""

import json

import kits
import pytest

import jitwarm

COMPILERS = ("torch", "triton", "cutlass", "tilelang", "tvm", "vllm", "numpy")
LOADED = f"""
import json, sys
print(json.dumps(sorted(name for name in sys.modules if name.partition(".")[0] in {COMPILERS!r})))
"""


@pytest.fixture
def compilers_after(tmp_path):
    """The compilers' modules that a process holds after some statements; it may leave no file anywhere it could."""

    def run(statements):
        places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "TMPDIR", "JITWARM_CACHE_DIR"), tmp_path)
        done = kits.python("-c", statements + LOADED, cwd=tmp_path, **places)
        assert done.returncode == 0, done.stderr
        assert list(tmp_path.iterdir()) == []
        return json.loads(done.stdout)

    return run


def test_import_jitwarm_loads_no_gpu_stack_and_makes_no_directory(compilers_after):
    assert compilers_after("import jitwarm") == []


def test_import_jitwarm_loads_the_standard_library_and_pluggy_at_most(compilers_after):
    watch = """
import sys
before = set(sys.modules)
import jitwarm
own = {name.partition(".")[0] for name in set(sys.modules) - before}
assert own - set(sys.stdlib_module_names) <= {"jitwarm", "pluggy"}, own
"""
    assert compilers_after(watch) == []


@pytest.mark.parametrize("name", jitwarm.__all__)
def test_every_public_name_resolves(name):
    assert getattr(jitwarm, name).__module__.startswith("jitwarm") or name == "hookimpl"
    assert name in dir(jitwarm)


def test_no_public_name_imports_a_compiler(compilers_after):
    asked = "\n".join(f"from jitwarm import {name}" for name in jitwarm.__all__)
    assert compilers_after(asked) == []


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="TritonKernal"):
        _ = jitwarm.TritonKernal


@pytest.mark.parametrize("backend", ["_triton", "_cutedsl", "_tilelang"])
def test_a_backends_plugin_says_what_it_is_without_its_compiler(compilers_after, backend):
    asked = f"""
from jitwarm.backends.{backend} import plugin
(backend,) = plugin.jitwarm_backends()
assert backend.name == "{backend.strip("_")}"
assert backend.missing() == ""
backend.toolchain().full_text()
"""
    assert compilers_after(asked) == []


def test_discovering_every_installed_plugin_imports_no_compiler(compilers_after):
    asked = (
        "from jitwarm.registry import Registry; r = Registry(); r.load_builtin(); r.load_installed(); assert r.plugins"
    )
    assert compilers_after(asked) == []


def test_the_command_line_imports_no_compiler(compilers_after):
    assert compilers_after("import jitwarm.cli") == []
