"""Find the names that a template reads from the row, without rendering it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import jinja2
import jinja2.meta
from jinja2 import nodes

from batch_assets.core.template.template_keys import keys_in

ROW = "row"
SELF = "self"
LOAD = "load"
_OF_MAPPINGS = frozenset(dir(dict))  # methods of the row, such as row.items()
# Methods of times of pandas that take the name of a time zone.
_TO_ZONE = frozenset(("astimezone", "fromordinal", "fromtimestamp", "tz_convert", "tz_localize"))
_MARKS = ("{{", "{%", "{#")


def is_template(source: str) -> bool:
    """Whether a string is more than plain text."""
    return any(mark in source for mark in _MARKS)


@dataclass(frozen=True)
class Reads:
    """The columns of a row that templates need.

    Attributes:
        columns: The columns.
        row: Whether the templates also get these columns together, as `row`.
        order: The columns of `row` in order; `None` to keep the order of the row that is rendered.
    """

    columns: set[str]
    row: bool
    order: list[str] | None = None


@dataclass
class Names:
    """The names that one or more templates read.

    Attributes:
        columns: Names that only the row can give.
        functions: Names of Jinja's functions. A column with the same name hides a function.
        in_row: Columns read as `row['name']` or `row.name`.
        row: Whether `row` is read at all.
        every: Whether `row` is read in a way that may need any column.
        itself: Whether `self` is read, which is the template itself and never a column.
        loads: Files loaded by a constant name.
        picks_files: Whether a file is included or loaded by a name that is no constant, or may be missing. Then
            other files may be read for other rows, or as soon as they exist.
        names_zones: Whether a time may be converted to a zone by its name. The machine has the rules of zones.
        keys: The keys that are looked up in objects; see `keys_in`.
        any_key: Whether any other key may be looked up as well.
        locations: "file, line N" of names that are read in an included file.
    """

    columns: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    in_row: set[str] = field(default_factory=set)
    row: bool = False
    every: bool = False
    itself: bool = False
    loads: set[str] = field(default_factory=set)
    picks_files: bool = False
    names_zones: bool = False
    keys: set[str] = field(default_factory=set)
    any_key: bool = False
    locations: dict[str, str] = field(default_factory=dict)

    @property
    def may_be_columns(self) -> bool:
        """Whether a function's name may be that of a column."""
        return bool(self.functions) and not self.loads

    @property
    def all(self) -> set[str]:
        """All names that are columns, or may be columns depending on the dataset."""
        special = {name for name, used in ((ROW, self.row), (SELF, self.itself)) if used}
        return self.columns | self.functions | self.in_row | special

    def reads(self, dataset: Sequence[str] | None) -> Reads:
        """Return the columns that are needed of a row.

        Args:
            dataset: The names of the dataset's columns in order; `None` as long as they are unknown.
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
        self.picks_files |= other.picks_files
        self.names_zones |= other.names_zones
        self.keys |= other.keys
        self.any_key |= other.any_key


class NameFinder:
    """Finds the names in templates of one environment.

    Args:
        environment: The Jinja environment.
    """

    def __init__(self, environment: jinja2.Environment) -> None:
        self._compiler = environment
        self._functions = set(environment.globals)
        # Jinja reports only names that are not globals.
        self._environment = environment.overlay()
        self._environment.globals = {}

    def find(self, source: str) -> Names:
        """Find the names that a template and its included files read from the row. Compiles the included files.

        Args:
            source: The template.

        Raises:
            jinja2.TemplateError: When an included file does not exist or is not a valid template.
        """
        names = Names()
        # An included template also sees the variables of the template that includes it.
        queue: list[tuple[str, str | None, frozenset[str]]] = [(source, None, frozenset())]
        seen = set()
        while queue:
            text, file, variables = queue.pop()
            tree = self._environment.parse(text, name=file)
            undeclared = jinja2.meta.find_undeclared_variables(tree) - variables
            if file is not None:
                for name, line in _lines(tree).items():
                    names.locations.setdefault(name, f"{file}, line {line}")
            names.functions |= undeclared & self._functions
            names.columns |= undeclared - self._functions - {ROW}
            if ROW in undeclared:
                names.row = True
                in_row, every = _reads_of_row(tree)
                names.in_row |= in_row
                names.every |= every
            names.names_zones |= _names_zones(tree)
            keys = keys_in(tree)
            names.keys |= keys or set()
            names.any_key |= keys is None
            name_nodes = list(tree.find_all(nodes.Name))
            names.itself |= any(node.name == SELF and node.ctx == "load" for node in name_nodes)
            variables |= {node.name for node in name_nodes if node.ctx in ("store", "param")}
            if LOAD in undeclared:
                names.loads |= set(_loaded_files(tree))
            names.picks_files |= _picks_files(tree, is_load_known=LOAD in undeclared)
            for name, optional in _included_files(tree):
                if (name, variables) in seen:
                    continue
                seen.add((name, variables))
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
                    queue.append((inner, name, variables))
        return names


def _includes(tree: nodes.Template) -> Iterator[nodes.Include | nodes.Extends | nodes.Import | nodes.FromImport]:
    for node in tree.find_all((nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)):
        assert isinstance(node, nodes.Include | nodes.Extends | nodes.Import | nodes.FromImport)
        yield node


def _picks_files(tree: nodes.Template, *, is_load_known: bool) -> bool:
    """Whether a template reads files that are not known before it is rendered; see `Names.picks_files`.

    Args:
        tree: The parsed template.
        is_load_known: Whether `load` is the function, so that files with a constant name were found.
    """
    for node in _includes(tree):
        if not isinstance(node.template, nodes.Const) or (isinstance(node, nodes.Include) and node.ignore_missing):
            return True
    uses = sum(name.name == LOAD and name.ctx == "load" for name in tree.find_all(nodes.Name))
    return uses > (len([*_loaded_files(tree)]) if is_load_known else 0)


def _names_zones(tree: nodes.Template) -> bool:
    """Whether a template may convert a time to a zone by its name: it names a method that does."""
    methods = (node.attr in _TO_ZONE for node in tree.find_all(nodes.Getattr))
    return any(methods) or any(
        node.value in _TO_ZONE for node in tree.find_all(nodes.Const) if type(node.value) is str
    )


def _included_files(tree: nodes.Template) -> Iterator[tuple[str, bool]]:
    """Yield (name, whether the file may be missing) of each file that a template includes by a constant name."""
    for node in _includes(tree):
        has_choices = isinstance(node.template, nodes.List | nodes.Tuple)
        optional = has_choices or (isinstance(node, nodes.Include) and node.ignore_missing)
        for file in node.template.iter_child_nodes() if has_choices else [node.template]:
            if isinstance(file, nodes.Const) and isinstance(file.value, str):
                yield file.value, optional


def _loaded_files(tree: nodes.Template) -> Iterator[str]:
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == LOAD and call.args:
            file = call.args[0]
            if isinstance(file, nodes.Const) and isinstance(file.value, str):
                yield file.value


def _reads_of_row(tree: nodes.Template) -> tuple[set[str], bool]:
    """(columns of `row` read by a constant name, whether `row` is also read in a way that may need any column)."""
    columns = set()
    by_name = 0
    for dotted in tree.find_all(nodes.Getattr):
        if _is_row(dotted.node) and dotted.attr not in _OF_MAPPINGS:
            columns.add(dotted.attr)
            by_name += 1
    for item in tree.find_all(nodes.Getitem):
        if _is_row(item.node) and isinstance(item.arg, nodes.Const) and isinstance(item.arg.value, str):
            columns.add(item.arg.value)
            by_name += 1
    uses = sum(name.name == ROW for name in tree.find_all(nodes.Name))
    return (set(), True) if uses > by_name else (columns, False)


def _lines(tree: nodes.Template) -> dict[str, int]:
    """The first line in which a template reads each name, as a column or as `row.column`."""
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
    """Split a template that consists only of text and columns, as most do.

    Such a template is rendered without Jinja, which needs ten times as long to set up a context for it.

    Args:
        tree: The parsed template.
        columns: The names that are columns.

    Returns:
        (whether it is a column, text or name of the column), or `None` for any other template.
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
