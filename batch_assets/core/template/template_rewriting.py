"""Rewrite the tree of a template before Jinja generates code, so that its work is counted.

Jinja compiles loops, comparisons, keys of dicts, slices and `~` to plain Python. Each is put through a filter of
`LimitedEnvironment` whose name starts with an underscore.
"""

from __future__ import annotations

from typing import Any

from jinja2 import nodes

CALLED = "()"
"""Ends the name of an attribute that a template calls. No identifier contains it."""
_FILE_STEPS = 10
_LITERALS = (nodes.Const, nodes.List, nodes.Tuple)


def rewrite(source: nodes.Template, *, is_included: bool) -> None:
    """Rewrite a template.

    Args:
        source: The template.
        is_included: Whether it is a file that others include. Then each time that it is rendered counts.
    """
    for call in source.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr):
            call.node.attr += CALLED
    for loop in list(source.find_all(nodes.For)):
        _count_loop(loop)
    for comparison in list(source.find_all(nodes.Compare)):
        _count_comparison(comparison)
    for pair in list(source.find_all(nodes.Pair)):
        pair.key = _counted_key(pair.key)
    for item in list(source.find_all(nodes.Getitem)):
        item.arg = _counted_key(item.arg)
    _replace(source)
    if is_included:
        entered = _filter("_entered", nodes.Const(_printed(source.body)), [nodes.Const(_FILE_STEPS)], source)
        source.body.insert(0, nodes.ExprStmt(entered, lineno=1))


def _count_loop(loop: nodes.For) -> None:
    """Count the rounds of a loop. A loop over a tree also runs for branches that do not pass its own iterable."""
    units = nodes.Const(_printed(loop.body))
    if not loop.recursive:
        loop.iter = _filter("_looped", loop.iter, [units], loop)
        return
    entered = _filter("_entered", units, [nodes.Const(1)], loop)
    if loop.test is not None:
        loop.test = nodes.And(entered, loop.test, lineno=loop.lineno)
    else:
        loop.body.insert(0, nodes.ExprStmt(entered, lineno=loop.lineno))


def _count_comparison(comparison: nodes.Compare) -> None:
    """Count that operands are read. Comparing with a literal takes no time."""
    left = comparison.expr
    for operand in comparison.ops:
        right = operand.expr
        is_in = operand.op.endswith("in")  # also in its negation
        literals = (right,) if is_in else (left, right)
        if not any(isinstance(side, _LITERALS) for side in literals):
            operand.expr = _filter("_compared", right, [], comparison)
        left = right


def _counted_key(key: nodes.Expr) -> nodes.Expr:
    """Count that a key of a dict is read: a tuple is hashed with all that is in it, each time."""
    return key if isinstance(key, nodes.Const | nodes.Slice) else _filter("_compared", key, [], key)


def _replace(node: nodes.Node) -> None:
    """Replace `a ~ b` and slices within a node."""
    for field, value in node.iter_fields():
        values = value if isinstance(value, list) else [value]
        for at, sub in enumerate(values):
            if not isinstance(sub, nodes.Node):
                continue
            _replace(sub)
            if isinstance(sub, nodes.Concat):
                values[at] = _filter("_joined", sub.nodes[0], sub.nodes[1:], sub)
            elif isinstance(sub, nodes.Getitem) and isinstance(sub.arg, nodes.Slice):
                ends = [end or nodes.Const(None) for end in (sub.arg.start, sub.arg.stop, sub.arg.step)]
                values[at] = _filter("_sliced", sub.node, ends, sub)
        if not isinstance(value, list):
            setattr(node, field, values[0])


def _filter(name: str, value: Any, arguments: list[Any], at: nodes.Node) -> nodes.Filter:
    return nodes.Filter(value, name, arguments, [], None, None, lineno=at.lineno)


def _printed(body: list[nodes.Node]) -> int:
    """The characters that a part of a template prints whatever the row, if all of it runs once."""
    return sum(len(data.data) for node in body for data in _texts(node))


def _texts(node: nodes.Node) -> list[nodes.TemplateData]:
    return [node] if isinstance(node, nodes.TemplateData) else list(node.find_all(nodes.TemplateData))
