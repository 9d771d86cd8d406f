"""Rewriting a function so that it can run on symbols.

Python's operators, branches, loops and comprehensions work on symbols as they are, through operator overloading. What cannot
be overloaded is turned into calls of hooks: calls themselves, `is`, `in`, subscripts. `assert` and `raise` become one signal,
"outside the domain", without building the message, which would ask for the value.
"""

import ast
import linecache
import sys
import types
from collections.abc import Mapping
from typing import Any

from jitwarm.tracing.source import UntraceableError, all_codes, function_tree

CALL, ITEM, IS, IN, FORCE, SUBJECT, OUTSIDE = (
    "__jitwarm_call__", "__jitwarm_item__", "__jitwarm_is__", "__jitwarm_in__", "__jitwarm_force__",
    "__jitwarm_subject__", "__jitwarm_outside__",
)  # fmt: skip

_REFUSED: tuple[type[ast.AST], ...] = (
    ast.Try, ast.TryStar, ast.With, ast.AsyncWith, ast.AsyncFor, ast.AsyncFunctionDef, ast.ClassDef, ast.Import,
    ast.ImportFrom, ast.Global, ast.Nonlocal, ast.Delete, ast.Yield, ast.YieldFrom, ast.Await,
)  # fmt: skip
_INTROSPECTIVE = frozenset({"locals", "globals", "vars", "eval", "exec", "super", "id"})

_CODES: dict[types.CodeType, types.CodeType] = {}


class Lifted:
    """Makes lifted functions with one set of hooks, and tells them from others."""

    def __init__(self, hooks: Mapping[str, Any]) -> None:
        self._hooks = hooks
        self._functions: dict[types.FunctionType, types.FunctionType] = {}
        self._codes: set[int] = set()

    def lift(self, function: types.FunctionType) -> types.FunctionType:
        """`function`, rewritten: same globals, closure and defaults.

        Raises:
            UntraceableError: It has no usable source, or uses syntax that symbols cannot pass through.
        """
        if self.is_lifted(function):
            return function
        if function not in self._functions:
            code = _lifted_code(function)
            self._codes.update(id(nested) for nested in all_codes(code))
            cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
            made = types.FunctionType(
                code,
                {**function.__globals__, **self._hooks},
                function.__name__,
                function.__defaults__,
                tuple(cells[name] for name in code.co_freevars),
            )
            made.__kwdefaults__ = function.__kwdefaults__
            self._functions[function] = made
        return self._functions[function]

    def is_lifted(self, function: object) -> bool:
        """Whether this is a function, or a running generator, of rewritten code."""
        code = getattr(function, "__code__", None) or getattr(function, "gi_code", None)
        return id(code) in self._codes


def _lifted_code(function: types.FunctionType) -> types.CodeType:
    original = function.__code__
    if original not in _CODES:
        tree = function_tree(function)
        name = tree.name
        rewritten = _Rewriter().visit_body(tree)
        rewritten.name = "lifted"
        factory = ast.parse(f"def factory({', '.join(original.co_freevars)}): pass").body[0]
        assert isinstance(factory, ast.FunctionDef)  # noqa: S101 - for the type checker
        factory.body = [rewritten, ast.Return(ast.Name("lifted", ast.Load()))]
        module = ast.fix_missing_locations(ast.Module([ast.copy_location(factory, tree)], []))
        outer = next(
            c for c in compile(module, original.co_filename, "exec").co_consts if isinstance(c, types.CodeType)
        )
        inner = next(c for c in outer.co_consts if isinstance(c, types.CodeType))
        _CODES[original] = inner.replace(co_name=name)
    return _CODES[original]


class _Rewriter(ast.NodeTransformer):
    """One function's tree, hooks in place."""

    def visit_body(self, tree: ast.FunctionDef) -> ast.FunctionDef:
        """Rewrite the body of the outermost function."""
        for argument in (*tree.args.args, *tree.args.kwonlyargs):
            argument.annotation = None
        tree.body = [self.visit(statement) for statement in tree.body]
        tree.decorator_list, tree.returns = [], None
        return tree

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, _REFUSED):
            _refuse(node, type(node).__name__.lower())
        return super().visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.decorator_list:
            _refuse(node, "a decorated inner function")
        node.returns = None
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in _INTROSPECTIVE:
            _refuse(node, f"{node.func.id}()")
        self.generic_visit(node)
        node.args.insert(0, node.func)
        node.func = _name(CALL, node)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        special = (ast.Is, ast.IsNot, ast.In, ast.NotIn)
        if not any(isinstance(op, special) for op in node.ops):
            return node
        if len(node.ops) > 1:
            _refuse(node, "`is` or `in` inside a chained comparison")
        hook = IS if isinstance(node.ops[0], ast.Is | ast.IsNot) else IN
        call: ast.expr = _hook(hook, node, node.left, node.comparators[0])
        if isinstance(node.ops[0], ast.IsNot | ast.NotIn):
            call = ast.copy_location(ast.UnaryOp(ast.Not(), call), node)
        return call

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            return _hook(ITEM, node, node.value, _index(node.slice))
        node.slice = _hook(FORCE, node, _index(node.slice))
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if not isinstance(node.ctx, ast.Load):
            _refuse(node, "an assignment to an attribute")
        if node.attr.startswith("__") and not node.attr.endswith("__"):
            _refuse(node, f"the private name {node.attr}")
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        if any(isinstance(part, ast.Subscript) for target in node.targets for part in ast.walk(target)):
            node.value = _hook(FORCE, node.value, node.value)  # nothing symbolic is put where others may find it
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        if not isinstance(node.target, ast.Name):
            _refuse(node, "an augmented assignment to an element")
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return self.visit(ast.copy_location(ast.Assign([node.target], node.value), node))  # type: ignore[no-any-return]  # visitor

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.copy_location(ast.Raise(_name(OUTSIDE, node)), node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        test = self.visit(node.test)
        raising = ast.copy_location(ast.Raise(_name(OUTSIDE, node)), node)
        return ast.copy_location(ast.If(ast.copy_location(ast.UnaryOp(ast.Not(), test), node), [raising], []), node)

    def visit_Match(self, node: ast.Match) -> ast.AST:
        self.generic_visit(node)
        by_class = any(
            isinstance(p, ast.MatchClass | ast.MatchMapping) for case in node.cases for p in ast.walk(case.pattern)
        )
        node.subject = _hook(FORCE if by_class else SUBJECT, node.subject, node.subject)
        return node


def _index(node: ast.expr) -> ast.expr:
    """A subscript as an ordinary expression."""
    if isinstance(node, ast.Slice):
        parts = [part or ast.copy_location(ast.Constant(None), node) for part in (node.lower, node.upper, node.step)]
        return _hook(CALL, node, _name("slice", node), *parts)
    if isinstance(node, ast.Tuple) and any(isinstance(part, ast.Slice) for part in node.elts):
        _refuse(node, "a slice of several dimensions")
    return node


def _hook(name: str, at: ast.AST, *arguments: ast.expr) -> ast.Call:
    return ast.copy_location(ast.Call(_name(name, at), list(arguments), []), at)


def _name(name: str, at: ast.AST) -> ast.Name:
    return ast.copy_location(ast.Name(name, ast.Load()), at)


def _refuse(node: ast.AST, what: str) -> None:
    raise UntraceableError(f"line {getattr(node, 'lineno', '?')}: {what} cannot be followed symbolically")


Site = tuple[types.CodeType, int]


def author_site() -> Site | None:
    """Where in a lifted function the evaluation stands just now."""
    frame: types.FrameType | None = sys._getframe(1)  # noqa: SLF001 - the only way to the caller's position
    while frame is not None and CALL not in frame.f_globals:
        frame = frame.f_back
    return (frame.f_code, frame.f_lasti) if frame is not None else None


def expression_at(code: types.CodeType, instruction: int) -> tuple[str, int, int]:
    """(source text, line, column) of the expression that an instruction belongs to."""
    line, last_line, start, end = list(code.co_positions())[instruction // 2]
    if line is None or start is None:
        return "", code.co_firstlineno, 0
    text = linecache.getline(code.co_filename, line).encode()
    return (text[start:end] if line == last_line else text[start:]).decode().strip(), line, start
