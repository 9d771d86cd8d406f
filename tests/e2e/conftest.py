"""The example package, built as a wheel and installed into a directory of its own; and compilers that count themselves."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"


def install_wheel(source, site, work):
    """Build the package at `source` as a wheel and install it into the directory `site`, as pip does anywhere."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(work), str(source)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    wheel = next(work.glob("*.whl"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, text=True)


@pytest.fixture(scope="session")
def example_site(tmp_path_factory):
    """A directory with jitwarm-example installed from a wheel that was built here and now."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    shutil.copytree(ROOT / "plugins" / "jitwarm-example", source, ignore=shutil.ignore_patterns("__pycache__"))
    site = work / "site"
    install_wheel(source, site, work)
    return site


@dataclass
class Commands:
    """Runs the command line in fresh processes, with every compiler run logged by the compiler's own stand-in at its path."""

    directory: Path
    site: Path
    environ: dict = field(default_factory=dict)

    def run(self, *arguments, sites=(), check=None, **environ):
        """The command line."""
        command = ["-m", "jitwarm", *map(str, arguments)]
        done = self._start(command, sites, environ)
        if check is not None:
            assert done.returncode == check, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    def python(self, program, **environ):
        """A program of its own, with the same packages and compilers."""
        return self._start(["-c", program], (), environ)

    def _start(self, command, sites, environ):
        path = os.pathsep.join(map(str, [SUPPORT / "counting", self.site, *sites, SUPPORT]))
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("JITWARM_")},
            "PYTHONPATH": path, "CUTE_COUNT_LOG": str(self.directory / "cute.log"),
            "HOME": str(self.directory), "XDG_CACHE_HOME": str(self.directory / "cache"), **self.environ, **environ,
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            env=env,
            cwd=self.directory,
        )

    def counts(self):
        """Compiler runs since the last call: ptxas, nvcc and CuTeDSL's compiler."""
        found = {}
        for name in ("ptxas", "nvcc", "cute"):
            log = self.directory / f"{name}.log"
            found[name] = len(log.read_text().splitlines()) if log.exists() else 0
            log.unlink(missing_ok=True)
        return found


@pytest.fixture(scope="session")
def commands(tmp_path_factory, example_site):
    """The command line with counting compilers in front of the real ones, which do the work."""
    triton = pytest.importorskip("triton")
    pytest.importorskip("cutlass")
    pytest.importorskip("tilelang")
    from jitwarm.backends._tilelang.adapter import find_nvcc

    directory = tmp_path_factory.mktemp("commands")
    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    wrap(directory / "bin" / "ptxas", bundled / "ptxas", directory / "ptxas.log")
    wrap(directory / "bin" / "ptxas-blackwell", bundled / "ptxas-blackwell", directory / "ptxas.log")
    nvcc = find_nvcc()
    assert nvcc, "the tests of the main job need nvcc; see .ci/setup"
    home = directory / "cuda"
    shadow(nvcc.resolve().parents[1], home)
    (home / "bin" / "nvcc").unlink()
    wrap(home / "bin" / "nvcc", nvcc.resolve(), directory / "nvcc.log")
    return Commands(
        directory,
        example_site,
        {
            "TRITON_PTXAS_PATH": str(directory / "bin" / "ptxas"),
            "TRITON_PTXAS_BLACKWELL_PATH": str(directory / "bin" / "ptxas-blackwell"),
            "CUDA_HOME": str(home),
        },
    )


def wrap(place, real, log):
    """Put a script at `place` that notes each run in `log`, but for questions about the version, and runs `real`."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(
        f'#!/bin/sh\ncase "$*" in *--version*) ;; *) echo "$@" | tr "\\n" " " >> {log}; echo >> {log} ;; esac\nexec {real} "$@"\n'
    )
    place.chmod(0o755)


def shadow(real, place):
    """A copy of a toolkit's directory made of links, with a bin/ of its own."""
    place.mkdir()
    for entry in real.iterdir():
        if entry.name != "bin":
            (place / entry.name).symlink_to(entry)
    (place / "bin").mkdir()
    for program in (real / "bin").iterdir():
        (place / "bin" / program.name).symlink_to(program)
