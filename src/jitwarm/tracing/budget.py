"""How many evaluations may be spent, and what asked for them."""

from collections import Counter
from typing import Any


class Exhausted(Exception):  # noqa: N818 - it is caught and turned into the author's error
    """More evaluations than allowed. `test` is the test that asked for them, `axis` the axis that it enumerates."""

    def __init__(self, test: Any, axis: int | None) -> None:
        super().__init__(test, axis)
        self.test = test
        self.axis = axis


class Budget:
    """Evaluations that may still be spent; `sites` counts where in the author's code values were asked for."""

    def __init__(self, n: int) -> None:
        self.n_left = n
        self.sites: Counter[Any] = Counter()
        self.n_spent = 0

    def spend(self, n: int, test: Any, axis: int | None) -> None:
        """Take `n` evaluations.

        Raises:
            Exhausted: There are fewer left.
        """
        self.n_left -= n
        self.n_spent += n
        if self.n_left < 0:
            raise Exhausted(test, axis)
