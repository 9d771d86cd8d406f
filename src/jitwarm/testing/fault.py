"""A fault as data, and how a function becomes one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

FaultOutcome = Literal["compiled", "skipped", "failed", "timed_out", "unresolved"]


@dataclass(frozen=True)
class Fault:
    """One thing that a compiler may do instead of compiling.

    Attributes:
        name: e.g. `"segfaults"`; the compile key of a `FaultyKernel` holds it.
        what_it_does: One sentence.
        outcome: How the row of such a key ends where keys are built in compile processes.
        says: A part of the row's error; empty where there is none.
        is_deadly: Whether the compile process dies of it, or can no longer be understood: the key is tried once more in a
            fresh process, then quarantined if nothing was built. A key that hangs (outcome `timed_out`) is quarantined at once.
        is_harmless: Whether it only raises, so that any process can have it. Every other fault is had by compile processes
            only.
        act: Has the fault. What it returns, if anything, is what the compile answers.
    """

    name: str
    what_it_does: str
    outcome: FaultOutcome
    says: str = ""
    is_deadly: bool = False
    is_harmless: bool = False
    act: Callable[[], object] = field(default=lambda: None, repr=False, compare=False)

    @property
    def is_quarantined(self) -> bool:
        """Whether the next start does not try the key again."""
        return self.outcome == "timed_out" or (self.is_deadly and self.outcome == "failed")


def a_fault(
    outcome: FaultOutcome, says: str = "", *, is_deadly: bool = False, is_harmless: bool = False
) -> Callable[[Callable[[], object]], Fault]:
    """Make a fault of a function: its name with spaces is the fault's, its docstring says what it does."""

    def make(act: Callable[[], object]) -> Fault:
        name = act.__name__.replace("_", " ")
        return Fault(name, act.__doc__ or "", outcome, says, is_deadly, is_harmless, act)

    return make
