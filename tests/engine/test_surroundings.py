"""What a process happens to be started with changes no key and no fingerprint: what was built one way is loaded the other.

The hash seed, the locale, the umask, the working directory, and a main module without an import guard.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

import kits
import pytest

PLUGIN = '''
import hashlib, os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
import kits
from jitwarm import hookimpl
from jitwarm.contract.keys import encode_key

class Color(Enum):
    RED = 1
    GREEN = 2

@dataclass(frozen=True)
class Rich:
    word: str
    names: frozenset
    color: Color
    mixed: tuple
    raw: bytes

class Bench(kits.Workshop):
    name = "bench"
    cache_variables = {"BENCH_CACHE_DIR": "bench"}

class Kernel:
    """Its compiler keeps artifacts on disk."""
    CompileKey = Rich
    name = "kernel"
    backend = Bench.name

    def dispatch(self, *, word):
        return Rich(word, frozenset(), Color.RED, (), b"")

    def get_warmup_keys(self, config):
        words = {"I", "i", "\\u0131", "\\u0130stanbul", "\\u00b5", "plain"}  # the order of a set is the hash seed's
        return [Rich(word, frozenset(words), color, (1, True, 1.0, 0.1), word.encode()) for word in words for color in Color]

    def compile(self, key):
        name = hashlib.sha256(encode_key(key).encode()).hexdigest()
        artifact = Path(os.environ["BENCH_CACHE_DIR"], name, "artifact")
        if not artifact.exists():
            Bench.count.add_compile()
            artifact.parent.mkdir(parents=True)
            artifact.write_text(key.word, encoding="utf-8")
        Bench.count.add_files([artifact])

@hookimpl
def jitwarm_kernels():
    return [Kernel()]

@hookimpl
def jitwarm_backends():
    return [Bench()]
'''
# No `if __name__ == "__main__"`: whoever imports this main module again starts all of it again.
SERVER = """
import json, os, sys
with open(os.environ["STARTED"], "a") as started:
    started.write("started\\n")
from pathlib import Path
from jitwarm import Target, WarmupConfig
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings

root, plugin, kernels = sys.argv[1:]
settings = Settings(plugins=(plugin,), plan_timeout_s=600)
session = Session(Asked(WarmupConfig(), settings), Target("cuda", "90"), root=Path(root))
report = session.run(session.plan(kernels))
session.finish()
rows = {row.digest: [row.outcome, row.error] for row in report.rows}
print(json.dumps({"rows": rows, "n_compiles": report.n_compiles}))
"""
# Of the standard library, of jitwarm's own imports, and a compiler: none of these is to be imported.
SHADOWS = ("json.py", "socket.py", "msgspec.py", "pluggy.py", "jitwarm.py", "triton.py", "torch.py", "kits.py")
TURKISH = "tr_TR.UTF-8"


@dataclass(frozen=True)
class Surroundings:
    """What a server is started with; `cwd` is `here`, `gone` or `shadowing`."""

    name: str
    environ: dict = field(default_factory=dict)
    umask: str = "022"
    cwd: str = "here"


ORDINARY = Surroundings("ordinary", {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"})
NO_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ODD = [
    Surroundings("hash seed 1", {"PYTHONHASHSEED": "1"}),
    Surroundings("random hash seed", {"PYTHONHASHSEED": "random"}),
    Surroundings("ASCII", NO_UTF8),
    Surroundings("Turkish", {"LC_ALL": TURKISH, "PYTHONUTF8": "0"}),
    Surroundings("umask 077", umask="077"),
    Surroundings("umask 0", umask="0"),
    Surroundings("cwd gone", cwd="gone"),
    Surroundings("cwd shadowing", cwd="shadowing"),
]
ALL_AT_ONCE = Surroundings("all at once", {**NO_UTF8, "PYTHONHASHSEED": "7"}, umask="077", cwd="shadowing")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The plugin, the server, and a directory for what they make."""
    place = tmp_path_factory.mktemp("place")
    kits.install(place / "site", "rich", PLUGIN)
    (place / "server.py").write_text(SERVER)
    return place


@pytest.fixture(scope="module")
def locales(place):
    """A Turkish locale, made here: its lower case of I is no i."""
    if not shutil.which("localedef"):
        pytest.skip("there is no localedef")
    command = ["localedef", "-i", "tr_TR", "-f", "UTF-8", place / TURKISH]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if not (place / TURKISH).exists():
        pytest.skip(f"no Turkish locale: {made.stderr}")
    return place


@pytest.fixture
def serve(place, tmp_path, request):
    """Run the server in some surroundings. Returns its rows, after a look at how often it was started."""

    def serve(surroundings, root, plugin="rich", kernels="*"):
        log = tmp_path / "started"
        log.write_text("")
        environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "STARTED": str(log), **surroundings.environ}
        environ["PYTHONPATH"] = os.pathsep.join([str(place / "site"), *filter(None, sys.path)])
        if surroundings.environ.get("LC_ALL") == TURKISH:
            environ["LOCPATH"] = str(request.getfixturevalue("locales"))
        begin = f'umask {surroundings.umask}; cd "{directory(tmp_path, surroundings.cwd, log)}" && exec "$@"'
        if surroundings.cwd == "gone":
            begin = begin.replace("exec", 'rmdir "$PWD" && exec')
        done = subprocess.run(
            ["sh", "-c", begin, "sh", sys.executable, place / "server.py", root, plugin, kernels],
            env=environ, capture_output=True, text=True, encoding="utf-8", timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert log.read_text() == "started\n"
        return json.loads(done.stdout)

    return serve


def directory(tmp_path, cwd, log):
    """A working directory; what it holds says so in `log`, should it be imported."""
    made = tmp_path / f"cwd {cwd}"
    made.mkdir(exist_ok=True)
    for name in SHADOWS if cwd == "shadowing" else ():
        (made / name).write_text(f"open({str(log)!r}, 'a').write('{name} was imported')\nraise SystemExit(9)\n")
    return made


@pytest.fixture
def ordinary_store(place, serve):
    """A store that was made in ordinary surroundings; once for all tests."""
    root = place / "störe"
    if not root.exists():
        assert_all(serve(ORDINARY, root), "compiled", 12)
    return root


def fingerprints(root):
    return sorted(path.stem for path in (root / "manifest").iterdir())


def assert_all(answer, outcome, n_keys):
    assert list(answer["rows"].values()) == [[outcome, None]] * n_keys
    assert answer["n_compiles"] == (n_keys if outcome == "compiled" else 0)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_what_is_built_in_one_is_loaded_in_the_other(tmp_path, serve, ordinary_store, odd):
    odd_store = tmp_path / "their störe"
    made, loaded_oddly, loaded = serve(odd, odd_store), serve(odd, ordinary_store), serve(ORDINARY, odd_store)
    assert_all(made, "compiled", 12)
    assert_all(loaded_oddly, "loaded", 12)
    assert_all(loaded, "loaded", 12)
    assert made["rows"].keys() == loaded_oddly["rows"].keys() == loaded["rows"].keys()
    assert fingerprints(odd_store) == fingerprints(ordinary_store)


@pytest.mark.parametrize(
    ("builder", "loader"),
    [
        pytest.param(ORDINARY, ALL_AT_ONCE, id="loaded oddly"),
        pytest.param(ALL_AT_ONCE, ORDINARY, id="built oddly", marks=pytest.mark.soak),
    ],
)
def test_so_it_is_with_triton(tmp_path, serve, builder, loader):
    kernels = ("example", "example:fused_add_rms_norm")
    assert_all(serve(builder, tmp_path / "store", *kernels), "compiled", 6)
    assert_all(serve(loader, tmp_path / "store", *kernels), "loaded", 6)
