"""Finds states that are written as strings in code, instead of as a member of an enum.

A string counts if it is compared with, assigned to or filtered on a state, or passed to a function that takes
one. Result types of rows (`result_type`) and the API's own words (`processing_status`) are not states.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from batch_assets.core.ledger.states import BatchState, FileState, SubmissionState

WORDS = {str(state) for kind in (FileState, BatchState, SubmissionState) for state in kind}
_STATE_NAMES = {"state", "from_state", "to_state"}
_PARAMETERS = _STATE_NAMES | {"states", "before", "after"}
_TYPES = re.compile(r"\b(File|Batch|Submission)?(State|Move)\b")
_FILTERS = {"in_", "not_in", "notin_", "is_", "is_not", "is_distinct_from", "like", "startswith", "endswith"}
_COLLECTIONS = {"set", "frozenset", "tuple", "list", "sorted"}
_SQL = re.compile(r"\b(from_|to_)?state\s*(=|!=|<>|\bin\b|\bis\b)\s*\(?\s*'")


def takers(*trees: ast.Module) -> set[str]:
    """The names of functions and classes that take a state or a move."""
    names = {"record"}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                arguments += [argument for argument in (node.args.vararg,) if argument is not None]
                if any(argument.arg in _PARAMETERS or _is_typed(argument.annotation) for argument in arguments):
                    names.add(node.name)
            elif isinstance(node, ast.ClassDef) and any(
                isinstance(part, ast.AnnAssign) and _is_typed(part.annotation) for part in node.body
            ):
                names.add(node.name)
    return names


def _is_typed(annotation: ast.expr | None) -> bool:
    return annotation is not None and _TYPES.search(ast.unparse(annotation)) is not None


def literals_in(tree: ast.Module, taking: set[str]) -> list[tuple[int, str]]:
    """(line, code) of every state that is written as a string.

    Args:
        taking: What `takers` found in all modules. Private names only count if this module defines them.
    """
    finder = _Finder({name for name in taking if not name.startswith("_")} | takers(tree))
    finder.learn(tree)
    finder.visit(tree)
    return sorted(set(finder.literals))


@dataclass
class _Finder(ast.NodeVisitor):
    """Collects the literals of a module.

    Attributes:
        constants: What is assigned to each name of the module, where that may hold strings.
        holders: Names that are assigned an expression with a state in it.
    """

    taking: set[str]
    constants: dict[str, list[ast.expr]] = field(default_factory=dict)
    holders: set[str] = field(default_factory=set)
    literals: list[tuple[int, str]] = field(default_factory=list)

    def learn(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                pairs = [pair for target in node.targets for pair in _pairs(target, node.value)]
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
                pairs = [(node.target, node.value)]
            else:
                continue
            for target, value in pairs:
                if isinstance(target, ast.Name):
                    self.constants.setdefault(target.id, []).append(value)
                    if self._has_state(value):
                        self.holders.add(target.id)

    def _is_state(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute):
            return node.attr in _STATE_NAMES
        if isinstance(node, ast.Name):
            return node.id in _STATE_NAMES or node.id in self.holders
        if isinstance(node, ast.Subscript):
            return isinstance(node.slice, ast.Constant) and node.slice.value in _STATE_NAMES
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            return any(
                isinstance(argument, ast.Constant) and argument.value in _STATE_NAMES for argument in node.args
            )
        return False

    def _is_surely_state(self, node: ast.AST) -> bool:
        name = getattr(node, "attr", "") or getattr(node, "id", "state")
        return self._is_state(node) and name == "state"

    def _has_state(self, node: ast.AST) -> bool:
        return any(self._is_state(part) for part in ast.walk(node))

    def _strings(self, node: ast.AST, depth: int = 3) -> Iterator[str]:
        """The strings that an expression consists of or contains."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Name) and depth:
            for value in self.constants.get(node.id, []):
                yield from self._strings(value, depth - 1)
        elif isinstance(node, ast.Dict):
            for key in node.keys:
                yield from self._strings(key, depth) if key is not None else ()
        elif isinstance(node, ast.BinOp) and not isinstance(node.op, ast.Add | ast.BitOr):
            return
        elif isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Starred | ast.BinOp | ast.IfExp | ast.BoolOp):
            for part in ast.iter_child_nodes(node):
                yield from self._strings(part, depth)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in _COLLECTIONS:
            for part in node.args:
                yield from self._strings(part, depth)

    def _note(self, at: ast.AST, *nodes: ast.AST, words_only: bool = False) -> None:
        strings = [text for node in nodes for text in self._strings(node)]
        if any(text in WORDS or not words_only for text in strings):
            self.literals.append((at.lineno, ast.unparse(at)))  # type: ignore[attr-defined]

    def visit_Compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        states = [side for side in sides if self._has_state(side)]
        others = [side for side in sides if side not in states] if states else []
        # A name may hold more than a state, and the history has its own words.
        surely = any(self._is_surely_state(part) for side in states for part in ast.walk(side))
        self._note(node, *others, words_only=not surely)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if isinstance(node.func, ast.Attribute) and self._is_state(node.func.value) and name in _FILTERS:
            self._note(node, *node.args)
        elif (
            isinstance(node.func, ast.Attribute) and name == "get" and node.args and self._has_state(node.args[0])
        ):
            self._note(node, node.func.value)
        if name == "setattr" and getattr(node.args[1], "value", "") in _STATE_NAMES:
            self._note(node, node.args[2])
        if name in self.taking:
            self._note(node, *node.args, words_only=True)
        for keyword in node.keywords:
            if keyword.arg in _PARAMETERS:
                self._note(keyword, keyword.value, words_only=keyword.arg not in _STATE_NAMES)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._note_assigned(node, target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._note_assigned(node, node.target, node.value)
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._note_assigned(node, node.target, node.value)
        self.generic_visit(node)

    def _note_assigned(self, at: ast.AST, target: ast.AST, value: ast.expr) -> None:
        for name, assigned in _pairs(target, value):
            if isinstance(name, ast.Name) and name.id in _STATE_NAMES:
                self._note(at, assigned, words_only=True)
            elif not isinstance(name, ast.Name) and self._is_state(name):
                self._note(at, assigned)

    def visit_arguments(self, node: ast.arguments) -> None:
        arguments = [*node.posonlyargs, *node.args]
        defaults = [*zip(arguments[len(arguments) - len(node.defaults) :], node.defaults, strict=True)]
        defaults += [
            (argument, default)
            for argument, default in zip(node.kwonlyargs, node.kw_defaults, strict=True)
            if default
        ]
        for argument, default in defaults:
            if argument.arg in _PARAMETERS:
                self._note(default, default, words_only=True)
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value in _STATE_NAMES:
                self._note(value, value)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if self._has_state(node.slice):
            self._note(node, node.value)
        elif isinstance(node.value, ast.Name) and node.value.id in self.holders:
            self._note(node, node.slice, words_only=True)
        self.generic_visit(node)

    def visit_Match(self, node: ast.Match) -> None:
        if self._has_state(node.subject):
            for case in node.cases:
                for part in ast.walk(case.pattern):
                    if isinstance(part, ast.MatchValue):
                        self._note(part, part.value)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and _SQL.search(node.value):
            self.literals.append((node.lineno, ast.unparse(node)))


def _pairs(target: ast.AST, value: ast.expr) -> list[tuple[ast.AST, ast.expr]]:
    """Pair the targets and values of an assignment, which may be tuples."""
    if isinstance(target, ast.Tuple | ast.List):
        if isinstance(value, ast.Tuple | ast.List) and len(target.elts) == len(value.elts):
            return [
                pair
                for element, assigned in zip(target.elts, value.elts, strict=True)
                for pair in _pairs(element, assigned)
            ]
        return [pair for element in target.elts for pair in _pairs(element, value)]
    return [(target, value)]
