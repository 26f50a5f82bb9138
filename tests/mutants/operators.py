"""What counts as a small mistake: each mutation of a module, as a whole tree and a line that tells it.

    numbers     one more, one less; also those inside strings: quantifiers, networks, paths
    texts       an added character; patterns also lose each of their characters
    comparisons the next stricter or looser one, and the opposite
    conditions  always, never; `and` for `or`; each operand left out; `not` left out
    arithmetic  the opposite operator
    calls       each named argument left out; the call itself, where nothing is made of its result
    statements  return None; no raise

Docstrings, annotations without a call, decorators, and the wording of messages and logs are left as they are.
"""

from __future__ import annotations

import ast
import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Iterator

COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OPPOSITES = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
WORDING = {"REFUSAL", "_refused", "_log", "log"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mutated module: *name* tells where and what in one line, once in the module."""

    name: str
    tree: ast.Module


def mutants_of(source: str, only: frozenset[str] = frozenset()) -> list[Mutant]:
    """Return every mutant of *source*, or of the functions named in *only*."""
    tree = ast.parse(source)
    told: dict[str, int] = {}
    mutants = []
    for scope, path in _places(tree):
        if only and scope.split(".")[-1] not in only:
            continue
        node = _at(tree, path)
        patterns = _shorter(node.value) if _is_pattern(tree, path) else ()
        for changed in (*_changes(node), *patterns):
            name = f"{scope}: {_shown(node)} -> {_shown(changed)}"
            told[name] = told.get(name, 0) + 1
            name += f" ({told[name]})" if told[name] > 1 else ""
            mutants.append(Mutant(name, _replaced(tree, path, changed)))
    return mutants


def _places(tree: ast.Module) -> Iterator[tuple[str, tuple]]:
    """Give the scope and the path (fields and indices) of each node that may be changed."""
    stack: list[tuple[str, tuple, ast.AST]] = [("module", (), tree)]
    while stack:
        scope, path, node = stack.pop()
        if path:
            yield scope, path
        children = []
        for field, value in ast.iter_fields(node):
            for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(child, ast.AST) and not _is_left_alone(node, field, index, child):
                    inner = getattr(child, "name", None) if isinstance(child, ast.stmt) else None
                    inside = scope if inner is None else inner if scope == "module" else f"{scope}.{inner}"
                    children.append((inside, (*path, (field, index)), child))
        stack.extend(reversed(children))


def _is_left_alone(parent: ast.AST, field: str, index: int | None, child: ast.AST) -> bool:
    if field in {"annotation", "returns"}:
        return not any(isinstance(node, ast.Call) for node in ast.walk(child))
    is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
    return (
        field == "decorator_list"
        or isinstance(child, ast.JoinedStr | ast.Import | ast.ImportFrom)
        or (isinstance(parent, ast.Raise | ast.ExceptHandler) and field in {"exc", "cause", "type"})
        or (isinstance(parent, ast.Call) and field != "func" and _root(parent.func) in WORDING)
        or (isinstance(child, ast.AnnAssign) and _root(child.target) in WORDING)
        or (isinstance(child, ast.If) and _root(child.test) == "TYPE_CHECKING")
        or (is_docstring and field == "body" and index == 0)
    )


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return getattr(node, "id", "")


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    for kinds, changes in RULES.items():
        if isinstance(node, kinds):
            yield from changes(node)


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield from (ast.Constant(value + 1), ast.Constant(value - 1))
    elif isinstance(value, str):
        yield ast.Constant(value + "X")
        for number in re.finditer(r"[0-9]+", value):
            for other in (int(number[0]) + 1, int(number[0]) - 1):
                yield ast.Constant(value[: number.start()] + str(other) + value[number.end() :])
    elif isinstance(value, bytes):
        yield ast.Constant(value[:-1])


def _shorter(pattern: str) -> Iterator[ast.AST]:
    for i in range(len(pattern)):
        yield ast.Constant(pattern[:i] + pattern[i + 1 :])


def _comparisons(node: ast.Compare) -> Iterator[ast.AST]:
    for i, op in enumerate(node.ops):
        for other in COMPARISONS[type(op)]:
            yield ast.Compare(node.left, [*node.ops[:i], other(), *node.ops[i + 1 :]], node.comparators)


def _alternatives(node: ast.BoolOp) -> Iterator[ast.AST]:
    yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    for i in range(len(node.values)):
        rest = node.values[:i] + node.values[i + 1 :]
        yield ast.BoolOp(node.op, rest) if len(rest) > 1 else rest[0]


def _operands(node: ast.UnaryOp) -> Iterator[ast.AST]:
    if isinstance(node.op, ast.Not | ast.USub):
        yield node.operand


def _arithmetic(node: ast.BinOp | ast.AugAssign) -> Iterator[ast.AST]:
    if type(node.op) in OPPOSITES:
        changed = copy.copy(node)
        changed.op = OPPOSITES[type(node.op)]()
        yield changed


def _conditions(node: ast.If | ast.IfExp | ast.While) -> Iterator[ast.AST]:
    for value in (False,) if isinstance(node, ast.While) else (True, False):
        changed = copy.copy(node)
        changed.test = ast.Constant(value)
        yield changed


def _filters(node: ast.comprehension) -> Iterator[ast.AST]:
    if node.ifs:
        yield ast.comprehension(node.target, node.iter, [], node.is_async)


def _arguments(node: ast.Call) -> Iterator[ast.AST]:
    for i in range(len(node.keywords)):
        yield ast.Call(node.func, node.args, node.keywords[:i] + node.keywords[i + 1 :])


def _statements(node: ast.stmt) -> Iterator[ast.AST]:
    if not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call | ast.Await):
        yield ast.Pass()


def _results(node: ast.Return) -> Iterator[ast.AST]:
    if node.value is not None and ast.unparse(node.value) != "None":
        yield ast.Return(ast.Constant(None))


RULES = {
    ast.Constant: _constants,
    ast.Compare: _comparisons,
    ast.BoolOp: _alternatives,
    ast.UnaryOp: _operands,
    (ast.BinOp, ast.AugAssign): _arithmetic,
    (ast.If, ast.IfExp, ast.While): _conditions,
    ast.comprehension: _filters,
    ast.Call: _arguments,
    (ast.Expr, ast.Raise, ast.Break): _statements,
    ast.Return: _results,
}


def _is_pattern(tree: ast.Module, path: tuple) -> bool:
    parent, (field, index) = _at(tree, path[:-1]), path[-1]
    return (
        isinstance(parent, ast.Call)
        and ast.unparse(parent.func) == "re.compile"
        and (field, index) == ("args", 0)
    )


def _at(tree: ast.AST, path: tuple) -> ast.AST:
    for field, index in path:
        value = getattr(tree, field)
        tree = value if index is None else value[index]
    return tree


def _replaced(tree: ast.Module, path: tuple, changed: ast.AST) -> ast.Module:
    """Return a copy of *tree* that shares all but the nodes on the way to the changed one."""
    root = top = copy.copy(tree)
    for depth, (field, index) in enumerate(path):
        value = getattr(top, field)
        is_last = depth == len(path) - 1
        child = changed if is_last else copy.copy(value if index is None else value[index])
        setattr(top, field, child if index is None else [*value[:index], child, *value[index + 1 :]])
        top = child
    return ast.fix_missing_locations(root)


def _shown(node: ast.AST) -> str:
    return ast.unparse(node).splitlines()[0]
