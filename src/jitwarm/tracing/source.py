"""The syntax tree that a function was compiled from, or why there is none.

The text on disk may be newer than the code in memory. So the whole file is compiled again, and a tree is given out only where
the result is the very code object that runs.
"""

import ast
import linecache
import types
from copy import deepcopy
from functools import lru_cache

from jitwarm.errors import TracingError


class UntraceableError(TracingError):
    """This code cannot be followed symbolically; its callers fall back to calling it with concrete values.

    The first line of `message` is the reason; the author's line with a caret may follow. `hint` is the rewrite.
    """

    @property
    def reason(self) -> str:
        """What stands in the way, without the excerpt."""
        return self.message.partition("\n")[0]

    @property
    def sentence(self) -> str:
        """Place, reason and rewrite on one line, for notes."""
        return f"{self.where and self.where + ': '}{self.reason}{self.hint and '; ' + self.hint}"


def function_tree(function: types.FunctionType) -> ast.FunctionDef:
    """The definition of `function` as a fresh tree with the positions of its file; a lambda becomes a function that returns.

    Raises:
        UntraceableError: No source, source that was edited since, or several candidates on one line.
    """
    code = function.__code__
    text = "".join(linecache.getlines(code.co_filename))
    if not text:
        raise UntraceableError(f"{function.__qualname__} has no source", "define it in a file")
    nodes, codes = _parsed(code.co_filename, text)
    if code not in codes:
        raise UntraceableError(
            f"{function.__qualname__}: its source was edited after it was imported, or a tool rewrote it",
            "start the process again",
        )
    found = nodes.get((code.co_firstlineno, code.co_name), [])
    if len(found) != 1:
        raise UntraceableError(
            f"{function.__qualname__}: {len(found)} definitions begin on line {code.co_firstlineno}",
            "give each its own line",
        )
    return _as_function(found[0])


@lru_cache(maxsize=256)
def _parsed(filename: str, text: str) -> tuple[dict[tuple[int, str], list[ast.AST]], frozenset[types.CodeType]]:
    try:
        tree = ast.parse(text, filename)
    except SyntaxError as exc:
        raise UntraceableError(f"{filename} is not what was imported: {exc}") from exc
    nodes: dict[tuple[int, str], list[ast.AST]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            nodes.setdefault((first, node.name), []).append(node)
        elif isinstance(node, ast.Lambda):
            nodes.setdefault((node.lineno, "<lambda>"), []).append(node)
    return nodes, frozenset(all_codes(compile(text, filename, "exec", dont_inherit=True)))


def all_codes(code: types.CodeType) -> list[types.CodeType]:
    """A code object and all that are nested in it."""
    found = [code]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found += all_codes(constant)
    return found


def _as_function(node: ast.AST) -> ast.FunctionDef:
    copy = ast.parse("def f(): pass").body[0]
    assert isinstance(copy, ast.FunctionDef)  # noqa: S101 - for the type checker
    if isinstance(node, ast.Lambda):
        body: list[ast.stmt] = [ast.Return(deepcopy(node.body))]
        copy.name = "<lambda>"
    elif isinstance(node, ast.FunctionDef):
        body = [deepcopy(statement) for statement in node.body]
        copy.name = node.name
    else:
        raise TypeError(node)
    copy.args, copy.body = deepcopy(node.args), body
    copy.args.defaults, copy.args.kw_defaults = [], [None] * len(copy.args.kwonlyargs)
    for argument in ast.walk(copy.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return ast.copy_location(copy, node)
