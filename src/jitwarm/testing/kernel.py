"""A kernel whose compiler is broken, in a way that each key names."""

import difflib
import sys
from dataclasses import dataclass

from jitwarm.contract.config import WarmupConfig
from jitwarm.contract.kernel import Outcome
from jitwarm.errors import Unresolved, UsageError
from jitwarm.testing.faults import FAULTS


class FaultyKernel:
    """A kernel whose keys are faults, and whose `compile` has them. It launches nothing.

    A fault that would end, stop or change its process is had by compile processes only, because it is their part to bear it:
    in any other process such a key is `unresolved`, or is loaded without the fault if that lets the compile go on.

    Args:
        names: Names of `FAULTS`, one key each.
        name: The kernel's name.
        backend: The backend in whose compile processes it is built, e.g. `"triton"`: then the keys of that backend's kernels
            come before and after it in the same process. None for processes of its own.

    Raises:
        UsageError: There is no fault of a name.
    """

    @dataclass(frozen=True)
    class CompileKey:
        """The name of a fault."""

        fault: str

    def __init__(self, *names: str, name: str = "faulty", backend: str | None = None) -> None:
        for asked in names:
            if asked not in FAULTS:
                near = difflib.get_close_matches(asked, FAULTS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"faults are {', '.join(FAULTS)}"
                raise UsageError(f"there is no fault {asked!r}", hint)
        self.names = names
        self.name = name
        self.backend = backend

    def dispatch(self, *, fault: str) -> CompileKey:
        """The key of a fault."""
        return self.CompileKey(fault)

    def get_warmup_keys(self, config: WarmupConfig) -> list[CompileKey]:
        """One key for each fault, in the order in which they were given."""
        del config
        return [self.CompileKey(name) for name in self.names]

    def compile(self, key: CompileKey) -> object:
        """Have the fault of `key`, then build if that is still possible.

        Raises:
            Unresolved: The fault would harm this process, which is no compile process.
            BaseException: Whatever the fault raises.

        Side effects: in a compile process, those of the fault.
        """
        fault = FAULTS[key.fault]
        if fault.is_harmless or _is_compile_process():
            answer = fault.act()
            return self.build(key) if answer is None else answer
        if fault.outcome == "compiled":
            return self.build(key)
        raise Unresolved(
            f"{fault.name}: this fault is for compile processes, and would harm this one",
            "leave JITWARM_ISOLATE on, and see whether compile processes start: jitwarm doctor",
        )

    def build(self, key: CompileKey) -> object:
        """What a fault leaves of the compile, and what loads the result. Override it to compile something real.

        Returns:
            What `compile` answers: here `Outcome.COMPILED`, as nothing is kept that could be loaded.
        """
        del key
        return Outcome.COMPILED


def _is_compile_process() -> bool:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == "jitwarm.child"
