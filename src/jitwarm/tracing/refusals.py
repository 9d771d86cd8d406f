"""The syntax that symbols cannot pass through, why, and what to write instead."""

import ast

from jitwarm.tracing.places import excerpt_of_node
from jitwarm.tracing.source import UntraceableError

_GENERATOR = "a `yield`", "collect the values in a list and return it"
_STATE = "return the new value, and let the caller bind it"
_ASYNC = "write it without `async`"
_WITH = "a `with` block", "open what it needs where the class or module is defined, and only read it here"

# Node type -> (what it is, the rewrite).
REFUSED: dict[type[ast.AST], tuple[str, str]] = {
    ast.Try: ("a `try` block", "test the condition beforehand with `if`, e.g. `if n in table:` for `except KeyError`"),
    ast.TryStar: ("a `try` block", "test the condition beforehand with `if`"),
    ast.With: _WITH,
    ast.AsyncWith: _WITH,
    ast.AsyncFor: ("an `async for` loop", _ASYNC),
    ast.AsyncFunctionDef: ("an `async` function", _ASYNC),
    ast.Await: ("an `await`", _ASYNC),
    ast.ClassDef: ("a class definition", "define the class in the module"),
    ast.Global: ("a `global` statement", _STATE),
    ast.Nonlocal: ("a `nonlocal` statement", _STATE),
    ast.Yield: _GENERATOR,
    ast.YieldFrom: _GENERATOR,
}
# What asks Python about the running function itself, which is another one while symbols are followed.
INTROSPECTIVE = frozenset({"locals", "globals", "vars", "eval", "exec", "super", "id"})


class Refused(Exception):  # noqa: N818 - it is turned into `UntraceableError` where the file is known
    """Syntax that cannot be followed: the node, what it is, and what to write instead."""

    def __init__(self, node: ast.AST, what: str, rewrite: str) -> None:
        super().__init__(node, what, rewrite)
        self.node = node
        self.what = what
        self.rewrite = rewrite

    def in_file(self, filename: str) -> UntraceableError:
        """The error for people: `file:line`, the line with a caret, the reason and the rewrite."""
        reason = f"{self.what} cannot be followed symbolically"
        where = f"{filename}:{getattr(self.node, 'lineno', 0)}"
        return UntraceableError(reason + excerpt_of_node(filename, self.node), self.rewrite, where)
