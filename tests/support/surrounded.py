"""A plan in which a faulty kernel stands between real ones that the same compile process builds: before, faulty, after.

The faulty kernel has its fault, and then builds something real if it still can. A witness on each side notes the state of the
process that comes to it. Each attempt in a compile process is noted, too; see `fault_kit.note`.
"""

import locale
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import fault_kit
import kits

from jitwarm import CuteKernel, Target, TileLangKernel, TritonKernel, WarmupConfig, hookimpl
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings
from jitwarm.testing import FaultyKernel

# The module of a plugin that yields the plan; `install` writes it.
PLUGIN = """
from surrounded import jitwarm_kernels
"""
NAME = "around"
WITNESSES = ("witness before", "witness after")


def install(site):
    kits.install(site, NAME, PLUGIN)


def session(root, compiler, fault, listeners=(), **settings):
    """A server's session over such a plan; one compile process at a time, so that the order is known."""
    config = WarmupConfig(extra={NAME: {"compiler": compiler, "fault": fault}})
    asked = Asked(config, Settings(plugins=(NAME,), workers=1, **settings))
    return Session(asked, Target("cuda", "90"), root=root, listeners=listeners)


@hookimpl
def jitwarm_kernels(config):
    given = config.for_plugin(NAME)
    base, real = REAL[given["compiler"]]()
    before, within, after = (one(real, name, n) for n, name in enumerate(("before", "within", "after")))
    if not given["fault"]:
        return [before, within, after]
    faulty = of(base, Faulty)(given["fault"])
    faulty.within = within
    witnesses = [of(base, Witness)(name) for name in WITNESSES]
    return [before, witnesses[0], faulty, witnesses[1], after]


def of(base, kernel_class):
    """A class whose kernels the adapter of `base` takes for its own, so that they are built in its processes."""
    return type(kernel_class.__name__, (kernel_class, base), {"expand_keys": None, "check_keys": None})


def one(real, name, n):
    """A real kernel with a single key, its n-th."""
    kernel_class, keys = real
    listed = {"name": name, "get_warmup_keys": lambda self, config: [keys[n]]}
    return type(kernel_class.__name__, (kernel_class,), listed)()


def triton():
    from triton_kernels import Scale

    return TritonKernel, (Scale, [Scale.CompileKey(block=block) for block in (64, 128, 256)])


def cutedsl():
    from cute_kernels import Scale

    return CuteKernel, (Scale, [Scale.CompileKey(threads=threads) for threads in (32, 64, 128)])


def tilelang():
    from tilelang_kernels import LazyAdd

    return TileLangKernel, (LazyAdd, [LazyAdd.CompileKey(n) for n in (256, 512, 1024)])


REAL = {"triton": triton, "cutedsl": cutedsl, "tilelang": tilelang}


def forget():
    """As in a new process: what the compilers hold in memory is gone."""
    if "triton_kernels" in sys.modules:
        sys.modules["triton_kernels"].scale.device_caches.clear()
    if "tilelang_kernels" in sys.modules:
        sys.modules["tilelang_kernels"].lazy_add._kernel_cache.clear()


class Faulty(FaultyKernel):
    """A real kernel, `within`, whose compiler has a fault."""

    def compile(self, key):
        fault_kit.note(key.fault)
        return super().compile(key)

    def build(self, key):
        (real_key,) = self.within.get_warmup_keys(None)
        return self.within.compile(real_key)

    def is_warm(self, key):
        return False


@dataclass(frozen=True)
class Nothing:
    pass


class Witness:
    """Notes what of its process a compile may depend on."""

    CompileKey = Nothing

    def __init__(self, name):
        self.name = name

    def dispatch(self):
        return Nothing()

    def get_warmup_keys(self, config):
        return [Nothing()]

    def compile(self, key):
        umask = os.umask(0)
        os.umask(umask)
        fault_kit.note(
            self.name,
            umask=umask,
            directory=str(Path.cwd()),
            environ=dict(os.environ),
            locale=locale.setlocale(locale.LC_ALL),
            on_child=str(signal.getsignal(signal.SIGCHLD)),
            # Its own alarm comes after the key's deadline; what a compile before it has set would come sooner.
            alarm_is_its_own=signal.getitimer(signal.ITIMER_REAL)[0] > 11,
            output=[str(Path(f"/proc/self/fd/{fd}").readlink()).partition(":")[0] for fd in (1, 2)],
            can_print=[not stream.closed for stream in (sys.stdout, sys.stderr)],
        )

    def is_warm(self, key):
        return False
