"""Where in the author's text something stands, for messages: one way to show a line with a caret."""

import ast
import linecache
import re
import types


def excerpt(filename: str, line: int, column: int, end: int | None = None) -> str:
    """The line with carets below `column..end`, two lines of text that begin with a line break; empty without source.

    Args:
        filename: As in the code object.
        line: From 1.
        column: First column, in bytes of UTF-8 as the compiler counts them.
        end: Column after the last one; None means the end of the line.
    """
    whole = linecache.getline(filename, line).encode()
    shown = whole.decode().strip()
    if not shown:
        return ""
    before, marked = whole[:column].decode(errors="replace"), whole[column:end].decode(errors="replace").rstrip()
    indent = len(whole.decode()) - len(whole.decode().lstrip())
    return f"\n    {shown}\n    {' ' * max(0, len(before) - indent)}{'^' * max(1, len(marked))}"


def excerpt_of_node(filename: str, node: ast.AST) -> str:
    """The line on which a node begins, with carets below what of it stands there."""
    line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
    is_short = getattr(node, "end_lineno", None) == line
    return excerpt(filename, line, column, getattr(node, "end_col_offset", None) if is_short else None)


def excerpt_of_name(code: types.CodeType, word: str) -> str:
    """The first line of a definition, or of its parameters, that holds a word, with carets below the word."""
    for line in range(code.co_firstlineno, max(_lines(code), default=code.co_firstlineno) + 1):
        text = linecache.getline(code.co_filename, line)
        if match := re.search(rf"\b{re.escape(word)}\b", text):
            return excerpt(code.co_filename, line, *(len(text[:i].encode()) for i in match.span()))
    return ""


def expression_at(code: types.CodeType, instruction: int) -> tuple[str, int, int]:
    """(source text, line, column) of the expression that an instruction, counted in bytes, belongs to."""
    line, last_line, start, end = list(code.co_positions())[instruction // 2]
    if line is None or start is None:
        return "", code.co_firstlineno, 0
    text = linecache.getline(code.co_filename, line).encode()
    return (text[start:end] if line == last_line else text[start:]).decode(errors="replace").strip(), line, start


def excerpt_at(code: types.CodeType, instruction: int) -> tuple[str, str]:
    """The excerpt of the expression that an instruction belongs to, and its `file:line`."""
    text, line, column = expression_at(code, instruction)
    place = f"{code.co_filename}:{line}"
    return (excerpt(code.co_filename, line, column, column + len(text.encode())) if text else ""), place


def _lines(code: types.CodeType) -> list[int]:
    return [line for *_, line in code.co_lines() if line]
