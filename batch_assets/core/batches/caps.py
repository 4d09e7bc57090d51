"""Record what users set for all runs: budgets, how many requests may be queued at the API, and deadlines.

The ledger has them for runs and processes that do not load the pipelines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from batch_assets.core.ledger import budgets, queue, rescues
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.root import Root

Cap = TypeVar("Cap")


def record_caps(root: Root, pipelines: Iterable[Pipeline]) -> None:
    """Record the caps and deadlines of some pipelines, and the caps of the root, that have changed.

    Args:
        root: The root.
        pipelines: The pipelines.
    """
    named = {pipeline.name: pipeline for pipeline in pipelines}
    budget_of = {name: each.budget for name, each in named.items()} | {budgets.ROOT: root.settings.budget}
    limit_of = {name: each.config.batching.max_in_flight for name, each in named.items()}
    rule_of = {name: each.rescue_rule for name, each in named.items()}
    limit_of[queue.ROOT] = root.settings.max_in_flight
    with root.ledger.read() as tx:
        new_budgets = _changed(budget_of, budgets.recorded(tx))
        new_limits = _changed(limit_of, queue.recorded(tx))
        new_rules = _changed(rule_of, rescues.rules(tx, rule_of))
    if not (new_budgets or new_limits or new_rules):
        return
    with root.ledger.write() as tx:
        for name, budget in new_budgets.items():
            budgets.record(tx, name, budget)
        for name, limit in new_limits.items():
            queue.keep(tx, name, max_in_flight=limit)
        for name, rule in new_rules.items():
            rescues.record_rule(tx, name, rule)


def _changed(wanted: Mapping[str, Cap | None], recorded: Mapping[str, Cap]) -> dict[str, Cap | None]:
    return {name: cap for name, cap in wanted.items() if recorded.get(name) != cap}
