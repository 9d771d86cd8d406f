"""A package whose compiler builds ahead of time and is known to no backend: C modules, fetched where they are, else compiled."""

import ctypes
import subprocess
from dataclasses import dataclass

import jitwarm
from jitwarm import Outcome, hookimpl

SOURCE = "int scaled(int x) {{ return {factor} * x; }}\n"


def compile_c(factor, to):
    """Run the C compiler."""
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(to)]
    subprocess.run(command, input=SOURCE.format(factor=factor), text=True, check=True)


class Scaled:
    """One module for each factor; `place` has those that were built elsewhere, `sha256` is the digest of one of them."""

    name = "scaled"

    @dataclass(frozen=True)
    class CompileKey:
        factor: int
        place: str
        sha256: str

    def dispatch(self, *, factor, place, sha256):
        return self.CompileKey(factor, place, sha256)

    def get_warmup_keys(self, config):
        own = config.for_plugin("ahead")
        return [self.CompileKey(factor, own["place"], own["sha256"]) for factor in own["factors"]]

    def compile(self, key):
        module = jitwarm.artifact_dir() / "scaled.so"
        outcome = Outcome.LOADED if module.exists() else self._get(key, module)
        assert ctypes.CDLL(str(module)).scaled(2) == 2 * key.factor
        return outcome

    def _get(self, key, module):
        try:
            jitwarm.fetch(f"{key.place}/scaled{key.factor}.so", module, sha256=key.sha256)
        except jitwarm.FetchError:
            compile_c(key.factor, module)
            return Outcome.COMPILED
        return Outcome.LOADED


class Undecided(Scaled):
    """Its `compile` says of a key that it is not warm."""

    name = "undecided"

    def compile(self, key):
        return Outcome.UNRESOLVED


@hookimpl
def jitwarm_kernels():
    return [Scaled(), Undecided()]
