"""The names that a template takes from the row, found without rendering it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import jinja2
import jinja2.meta
from jinja2 import nodes

ROW = "row"
SELF = "self"
LOAD = "load"
_OF_MAPPINGS = frozenset(dir(dict))  # row.items() and the like
_MARKS = ("{{", "{%", "{#")


def is_template(source: str) -> bool:
    """Whether a string holds anything but text."""
    return any(mark in source for mark in _MARKS)


@dataclass(frozen=True)
class Reads:
    """What templates need of a row.

    Attributes:
        columns: the columns.
        row: whether they get all of these together, as `row`, too.
        order: the columns of `row` in order; None for those of the row that is given.
    """

    columns: set[str]
    row: bool
    order: list[str] | None = None


@dataclass
class Names:
    """What one template, or several, read.

    Attributes:
        columns: names that only the row can give.
        functions: names of Jinja's own functions, which a column of that name hides.
        in_row: columns read as `row['name']` or `row.name`.
        row: whether `row` is read at all.
        every: whether `row` is read in a way that may need any column.
        itself: whether `self` is read, which is the template itself and never a column.
        loads: files that are loaded by a name that is written down.
        places: file and line of names that a template reads in a file which it includes.
    """

    columns: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    in_row: set[str] = field(default_factory=set)
    row: bool = False
    every: bool = False
    itself: bool = False
    loads: set[str] = field(default_factory=set)
    places: dict[str, str] = field(default_factory=dict)

    @property
    def may_be_columns(self) -> bool:
        """Whether functions are read in a way that may be meant for columns of their names."""
        return bool(self.functions) and not self.loads

    @property
    def all(self) -> set[str]:
        """Every name that is a column or, depending on the dataset, may be one."""
        special = {name for name, used in ((ROW, self.row), (SELF, self.itself)) if used}
        return self.columns | self.functions | self.in_row | special

    def reads(self, dataset: Sequence[str] | None) -> Reads:
        """What is needed of a row.

        Args:
            dataset: names of the dataset's columns in order; None while they are not known.
        """
        if dataset is None:
            return Reads(self.columns | self.in_row, self.row)
        columns = self.columns | self.functions.intersection(dataset)
        if not self.row:
            return Reads(columns, row=False)
        if ROW in dataset:
            return Reads(columns | {ROW}, row=False)
        if not self.every:
            return Reads(columns | self.in_row, row=True)
        order = list(dict.fromkeys([*dataset, *sorted(self.in_row)]))
        return Reads(columns.union(order), row=True, order=order)

    def add(self, other: Names) -> None:
        self.columns |= other.columns
        self.functions |= other.functions
        self.in_row |= other.in_row
        self.row |= other.row
        self.every |= other.every
        self.itself |= other.itself


class NameFinder:
    """Finds the names in templates of one environment."""

    def __init__(self, environment: jinja2.Environment) -> None:
        self._compiler = environment
        self._functions = set(environment.globals)
        # Jinja tells of a name only if it is no global.
        self._environment = environment.overlay()
        self._environment.globals = {}

    def find(self, source: str) -> Names:
        """Names that a template, and what it includes, takes from the row. What it includes is compiled, too.

        Errors:
            jinja2.TemplateError: a file is not there, or is no template.
        """
        found = Names()
        # A template that is included also sees the variables of the one that includes it.
        waiting: list[tuple[str, str | None, frozenset[str]]] = [(source, None, frozenset())]
        seen = set()
        while waiting:
            text, file, given = waiting.pop()
            tree = self._environment.parse(text, name=file)
            undeclared = jinja2.meta.find_undeclared_variables(tree) - given
            if file is not None:
                for name, line in _lines(tree).items():
                    found.places.setdefault(name, f"{file}, line {line}")
            found.functions |= undeclared & self._functions
            found.columns |= undeclared - self._functions - {ROW}
            if ROW in undeclared:
                found.row = True
                in_row, every = _reads_of_row(tree)
                found.in_row |= in_row
                found.every |= every
            names = list(tree.find_all(nodes.Name))
            found.itself |= any(name.name == SELF and name.ctx == "load" for name in names)
            given |= {name.name for name in names if name.ctx in ("store", "param")}
            if LOAD in undeclared:
                found.loads |= set(_loaded_files(tree))
            for name, optional in _included_files(tree):
                if (name, given) in seen:
                    continue
                seen.add((name, given))
                try:
                    self._compiler.get_template(name)
                except jinja2.TemplateNotFound as error:
                    if optional and error.name == name:
                        continue
                    raise
                loader = self._environment.loader
                assert loader is not None
                inner = loader.get_source(self._environment, name)[0]
                if is_template(inner):
                    waiting.append((inner, name, given))
        return found


def _included_files(tree: nodes.Template) -> Iterator[tuple[str, bool]]:
    """(name, whether the template does without it) of each file that it names; others depend on the row."""
    for node in tree.find_all((nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)):
        assert isinstance(node, nodes.Include | nodes.Extends | nodes.Import | nodes.FromImport)
        several = isinstance(node.template, nodes.List | nodes.Tuple)
        optional = several or (isinstance(node, nodes.Include) and node.ignore_missing)
        for named in node.template.iter_child_nodes() if several else [node.template]:
            if isinstance(named, nodes.Const) and isinstance(named.value, str):
                yield named.value, optional


def _loaded_files(tree: nodes.Template) -> Iterator[str]:
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == LOAD and call.args:
            named = call.args[0]
            if isinstance(named, nodes.Const) and isinstance(named.value, str):
                yield named.value


def _reads_of_row(tree: nodes.Template) -> tuple[set[str], bool]:
    """(columns named by a constant, whether `row` is read in another way, which makes it every column)"""
    columns = set()
    plain = 0
    for dotted in tree.find_all(nodes.Getattr):
        if _is_row(dotted.node) and dotted.attr not in _OF_MAPPINGS:
            columns.add(dotted.attr)
            plain += 1
    for item in tree.find_all(nodes.Getitem):
        if _is_row(item.node) and isinstance(item.arg, nodes.Const) and isinstance(item.arg.value, str):
            columns.add(item.arg.value)
            plain += 1
    uses = sum(name.name == ROW for name in tree.find_all(nodes.Name))
    return (set(), True) if uses > plain else (columns, False)


def _lines(tree: nodes.Template) -> dict[str, int]:
    """The line of each name that a template reads, be it a column or `row.column`."""
    lines: dict[str, int] = {}
    for node in tree.find_all((nodes.Name, nodes.Getattr, nodes.Getitem)):
        name = None
        if isinstance(node, nodes.Name):
            name = node.name if node.ctx == "load" else None
        elif isinstance(node, nodes.Getattr) and _is_row(node.node):
            name = node.attr
        elif isinstance(node, nodes.Getitem) and _is_row(node.node) and isinstance(node.arg, nodes.Const):
            name = node.arg.value
        if isinstance(name, str):
            lines[name] = min(node.lineno, lines.get(name, node.lineno))
    return lines


def _is_row(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == ROW


def plain_parts(tree: nodes.Template, columns: set[str]) -> list[tuple[bool, str]] | None:
    """(is a column, text or column) for a template of nothing but text and columns, which most are.

    Such a template is put together here: Jinja takes ten times as long to set up a context for it.
    """
    parts: list[tuple[bool, str]] = []
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                parts.append((False, node.data))
            elif isinstance(node, nodes.Name) and node.name in columns:
                parts.append((True, node.name))
            else:
                return None
    return parts
