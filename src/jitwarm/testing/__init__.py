"""For kernel authors, integrators and ourselves: what a server does with a broken compiler.

    from jitwarm.testing import FAULTS, FaultyKernel

`FAULTS` are the faults that a compiler may have, as data. A `FaultyKernel` has them: a plugin that yields one shows what they
cost. Importing this package loads no GPU stack.
"""

from jitwarm.testing.fault import Fault
from jitwarm.testing.faults import FAULTS
from jitwarm.testing.kernel import FaultyKernel

__all__ = ["FAULTS", "Fault", "FaultyKernel"]
