"""Rewriting a function so that it can run on symbols.

Python's operators, branches, loops and comprehensions work on symbols as they are, through operator overloading. What cannot
be overloaded is turned into calls of hooks: calls themselves, `is`, `in`, subscripts. `assert` and `raise` become one signal,
"outside the domain", without building the message, which would ask for the value.
"""

import ast
import sys
import types
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from jitwarm.tracing.refusals import INTROSPECTIVE, REFUSED, Refused
from jitwarm.tracing.source import UntraceableError, all_codes, function_tree

CALL, ITEM, IS, IN, FORCE, SUBJECT, OUTSIDE = (
    "__jitwarm_call__", "__jitwarm_item__", "__jitwarm_is__", "__jitwarm_in__", "__jitwarm_force__",
    "__jitwarm_subject__", "__jitwarm_outside__",
)  # fmt: skip

_CODES: dict[types.CodeType, types.CodeType | UntraceableError] = {}


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
    """Each function is rewritten once, and a refusal kept."""
    original = function.__code__
    if original not in _CODES:
        try:
            _CODES[original] = _rewritten(original, function_tree(function))
        except Refused as refused:
            _CODES[original] = refused.in_file(original.co_filename)
    found = _CODES[original]
    if isinstance(found, UntraceableError):
        raise UntraceableError(*found.args)
    return found


def _rewritten(original: types.CodeType, tree: ast.FunctionDef) -> types.CodeType:
    name = tree.name
    rewritten = _Rewriter().visit_body(tree)
    rewritten.name = "lifted"
    factory = ast.parse(f"def factory({', '.join(original.co_freevars)}): pass").body[0]
    assert isinstance(factory, ast.FunctionDef)  # noqa: S101 - for the type checker
    factory.body = [rewritten, ast.Return(ast.Name("lifted", ast.Load()))]
    module = ast.fix_missing_locations(ast.Module([ast.copy_location(factory, tree)], []))
    outer = next(c for c in compile(module, original.co_filename, "exec").co_consts if isinstance(c, types.CodeType))
    inner = next(c for c in outer.co_consts if isinstance(c, types.CodeType))
    return inner.replace(co_name=name)


class _Rewriter(ast.NodeTransformer):
    """One function's tree, hooks in place."""

    def __init__(self) -> None:
        self._n_temporaries = 0
        self._in_iterable = False

    def visit_body(self, tree: ast.FunctionDef) -> ast.FunctionDef:
        """Rewrite the body of the outermost function."""
        for argument in (*tree.args.args, *tree.args.kwonlyargs):
            argument.annotation = None
        wrapper = self.generic_visit(ast.Module(tree.body, []))
        assert isinstance(wrapper, ast.Module)  # noqa: S101 - for the type checker
        tree.body, tree.decorator_list, tree.returns = wrapper.body, [], None
        return tree

    def visit(self, node: ast.AST) -> Any:
        if type(node) in REFUSED:
            raise Refused(node, *REFUSED[type(node)])
        return super().visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | list[ast.AST]:
        """A decorator is a call of it, so that the same rules hold as for other calls."""
        decorators, node.decorator_list = [self.visit(decorator) for decorator in node.decorator_list], []
        node.returns = None
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        self.generic_visit(node)
        applied: ast.expr = _name(node.name, node)
        for decorator in reversed(decorators):
            applied = _hook(CALL, node, decorator, applied)
        target = ast.copy_location(ast.Name(node.name, ast.Store()), node)
        return [node, ast.copy_location(ast.Assign([target], applied), node)] if decorators else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in INTROSPECTIVE:
            raise Refused(node, f"`{node.func.id}()`", "name the values it stands for")
        self.generic_visit(node)
        node.args.insert(0, node.func)
        node.func = _name(CALL, node)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        if any(isinstance(part, ast.Subscript | ast.Attribute) for part in ast.walk(node.target)):
            raise Refused(node.target, "a loop that assigns to an element", "loop over a name, and assign it")
        node.target = self.visit(node.target)
        outer, self._in_iterable = self._in_iterable, True
        node.iter = self.visit(node.iter)
        self._in_iterable = outer
        node.ifs = [self.visit(test) for test in node.ifs]
        return node

    def visit_For(self, node: ast.For) -> ast.AST:
        if any(isinstance(part, ast.Subscript | ast.Attribute) for part in ast.walk(node.target)):
            raise Refused(node.target, "a loop that assigns to an element", "loop over a name, and assign it")
        return self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        special = (ast.Is, ast.IsNot, ast.In, ast.NotIn)
        if not any(isinstance(op, special) for op in node.ops):
            return self.generic_visit(node)
        if len(node.ops) > 1:
            return self._chain(node)
        self.generic_visit(node)
        hook = IS if isinstance(node.ops[0], ast.Is | ast.IsNot) else IN
        call: ast.expr = _hook(hook, node, node.left, node.comparators[0])
        if isinstance(node.ops[0], ast.IsNot | ast.NotIn):
            call = ast.copy_location(ast.UnaryOp(ast.Not(), call), node)
        return call

    def _chain(self, node: ast.Compare) -> ast.AST:
        """`a < b in c` as `a < (t := b) and t in c`, which is what it means."""
        parts: list[ast.expr] = []
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            again = right
            if right is not node.comparators[-1] and not isinstance(right, ast.Name | ast.Constant):
                right, again = self._kept(right)  # noqa: PLW2901 - evaluated here, read again by the next comparison
            parts.append(ast.copy_location(ast.Compare(left, [op], [right]), node))
            left = deepcopy(again)
        return self.visit(ast.copy_location(ast.BoolOp(ast.And(), parts), node))  # type: ignore[no-any-return]  # visitor

    def _kept(self, value: ast.expr) -> tuple[ast.expr, ast.expr]:
        """An expression that keeps its value, and one that reads it."""
        if self._in_iterable:  # Python's grammar has no `:=` there
            raise Refused(value, "`is` or `in` in a chained comparison here", "split it at `and`")
        name = self._temporary()
        stored = ast.copy_location(ast.Name(name, ast.Store()), value)
        return ast.copy_location(ast.NamedExpr(stored, value), value), _name(name, value)

    def _temporary(self) -> str:
        self._n_temporaries += 1
        return f"__jitwarm_{self._n_temporaries}__"

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            return _hook(ITEM, node, node.value, _index(node.slice))
        node.slice = _hook(FORCE, node, _index(node.slice))
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if not isinstance(node.ctx, ast.Load):
            raise Refused(node, "an assignment to an attribute", "bind a local name instead")
        if node.attr.startswith("__") and not node.attr.endswith("__"):
            raise Refused(node, f"the private name `{node.attr}`", "begin the name with one underscore")
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        if any(isinstance(part, ast.Subscript) for target in node.targets for part in ast.walk(target)):
            node.value = _hook(FORCE, node.value, node.value)  # nothing symbolic is put where others may find it
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        """`c[i] += v` as: keep `c` and `i`, read the element, change it in place, put it back."""
        if not isinstance(node.target, ast.Subscript):
            return self.generic_visit(node)
        container, index, element = (self._temporary() for _ in range(3))
        position = _index(self.visit(node.target.slice))
        read, put = (
            ast.copy_location(ast.Subscript(_name(container, node), _name(index, node), context), node)
            for context in (ast.Load(), ast.Store())
        )
        stored = ast.copy_location(ast.Name(element, ast.Store()), node)
        steps: Sequence[ast.stmt] = (
            _bind(container, node, self.visit(node.target.value)),
            _bind(index, node, _hook(FORCE, node, position)),
            _bind(element, node, self.visit(read)),
            ast.copy_location(ast.AugAssign(stored, node.op, self.visit(node.value)), node),
            self.visit(ast.copy_location(ast.Assign([put], _name(element, node)), node)),
        )
        return list(steps)

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
        raise Refused(node, "a slice of several dimensions", "take one dimension at a time")
    return node


def _bind(name: str, at: ast.AST, value: ast.expr) -> ast.Assign:
    return ast.copy_location(ast.Assign([ast.copy_location(ast.Name(name, ast.Store()), at)], value), at)


def _hook(name: str, at: ast.AST, *arguments: ast.expr) -> ast.Call:
    return ast.copy_location(ast.Call(_name(name, at), list(arguments), []), at)


def _name(name: str, at: ast.AST) -> ast.Name:
    return ast.copy_location(ast.Name(name, ast.Load()), at)


Site = tuple[types.CodeType, int]


def author_site() -> Site | None:
    """Where in a lifted function the evaluation stands just now."""
    frame: types.FrameType | None = sys._getframe(1)  # noqa: SLF001 - the only way to the caller's position
    while frame is not None and CALL not in frame.f_globals:
        frame = frame.f_back
    return (frame.f_code, frame.f_lasti) if frame is not None else None
