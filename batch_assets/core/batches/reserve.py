"""What a request file may cost, before it is sent under a budget, and what others cost that count in it."""

from __future__ import annotations

from collections.abc import Sequence

from batch_assets.core.errors import DamagedFileError, UnboundedCostError
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import Lease, Transaction, budgets, files, holds, leases, reservations
from batch_assets.core.ledger.budgets import Budgets, Fit, Prospect
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.reservations import NO_BOUND, Amounts, OpenReservation
from batch_assets.core.ledger.states import HoldReason
from batch_assets.core.prices.budget import Hold, Period
from batch_assets.core.root import Root
from batch_assets.core.store.most_cost import most_of
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.response_cost import stored_cost


def in_force(root: Root, tx: Transaction, pipeline: str) -> Budgets:
    """Return the budgets that the files of a pipeline count in: as recorded, and the root's by the settings."""
    recorded = budgets.recorded(tx)
    of_root = root.settings.budget
    named = {pipeline: recorded.get(pipeline), budgets.ROOT: of_root}
    return {name: budget for name, budget in named.items() if budget is not None}


def know_what_counts(root: Root, pipeline: str) -> None:
    """Add everything to the ledger that counts in the budgets of a pipeline's files, and that it may not know.

    A ledger that was restored from an older copy lacks what was sent since: by other partitions, which count in
    the pipeline's budget, and by other pipelines, which count in the root's. A budget per run is that of one
    submission, whose files each run looks at. This is done once for each root that is opened.

    Args:
        root: The root.
        pipeline: The name of the pipeline.

    Raises:
        BusyError: When something is missing, and others worked on the requests of its pipeline the whole time.
        UnfinishedRenamingError: When a pipeline that counts was being renamed.
    """
    with root.ledger.read() as tx:
        limits = in_force(root, tx, pipeline)
    of_period = [name for name, budget in limits.items() if budget.per is not Period.RUN]
    if of_period:
        root.catch_up_once(None if budgets.ROOT in of_period else pipeline, leases.PATIENCE)


def held_that_fit(root: Root, waiting: Sequence[RequestFile]) -> set[str]:
    """Return the ids of those of some files that a budget holds back and that fit into it now."""
    held = [file for file in waiting if file.is_held_by_budget]
    if not held:
        return set()
    with root.ledger.read() as tx:
        limits = in_force(root, tx, held[0].pipeline)
        judged = budgets.prospects(tx, limits, held)
    return {file_id for file_id, prospect in judged.items() if prospect.may_go}


class FileReservation:
    """What one request file reserves in the budgets in force.

    Args:
        root: The root.
        file: The file.

    Attributes:
        is_cut: Whether it was held because only a part of it fits.
    """

    def __init__(self, root: Root, file: RequestFile) -> None:
        self._root, self._file = root, file
        self._why_no_bound: str | None = None
        self._limits: Budgets = {}
        self.is_cut = False

    def compute(self) -> None:
        """Find out what the file may cost, and what others cost that count in the same budgets.

        Raises:
            FileNotFoundError: When the file is missing.
            DamagedFileError: When it is not as it was written.
        """
        with self._root.ledger.read() as tx:
            self._limits = in_force(self._root, tx, self._file.pipeline)
        if not self._limits:
            return
        find_out_others(self._root, self._file, self._limits)
        try:
            most = _most_of(self._root, self._file)
        except UnboundedCostError as error:
            most, self._why_no_bound = None, str(error)
        with self._root.ledger.write(self._file.pipeline) as tx:
            reservations.keep_worst_case(tx, self._file.id, most)

    def may_go(self, tx: Transaction) -> bool:
        """Whether the file fits as a whole into the budgets that `compute` has read."""
        return not self._limits or self._prospect(tx).fit is Fit.WHOLE

    def goes(self, tx: Transaction) -> bool:
        """Whether the file fits into the budgets as a whole. It is held if not.

        No other file takes the same money before the intent is written, if the transaction writes it: it has
        locked out every other writer of an intent.
        """
        self._limits = in_force(self._root, tx, self._file.pipeline)
        prospect = self._prospect(tx)
        if prospect.fit is Fit.WHOLE:
            return True
        why = prospect.why
        if prospect.is_hopeless and self._why_no_bound is not None:
            why = f"{self._why_no_bound}. A budget needs a bound"
        files.hold(tx, self._file.id, HoldReason.BUDGET, why)
        self.is_cut = prospect.fit is Fit.IN_PART
        return False

    def let_go(self, lease: Lease) -> RequestFile:
        """Make the file ready if a budget or the queue holds it. Whether it fits is found out before it is sent.

        Returns:
            The file as it is now.
        """
        with self._root.ledger.write(self._file.pipeline) as tx:
            lease.confirm(tx)
            file = files.by_id(tx, self._file.id)
            if file.is_held_by_budget:
                holds.release(tx, [file], "the budget has money left")
            elif file.is_held_by_queue:
                holds.release(tx, [file], "the queue has room")
            return files.by_id(tx, file.id)

    def _prospect(self, tx: Transaction) -> Prospect:
        file = files.by_id(tx, self._file.id)
        return budgets.prospects(tx, self._limits, [file], is_final=True)[file.id]

    def amounts(self, tx: Transaction, file: RequestFile) -> Amounts:
        """Return what the file counts in the budgets that `goes` has read in the same transaction."""
        return _amounts(tx, file) if self._limits else reservations.NOT_COMPUTED


def find_out_others(root: Root, file: RequestFile, limits: Budgets) -> None:
    """Find out what is not known about reservations that count in the same budgets as a file.

    Args:
        root: The root.
        file: The file.
        limits: The budgets.
    """
    with root.ledger.read() as tx:
        open_: dict[int, OpenReservation] = {}
        for name, budget in limits.items():
            scope = reservations.of_budget(budget, name or None, [file.submission_id], tx.now)
            open_ |= {each.id: each for each in reservations.to_find_out(tx, scope)}
    for each in open_.values():
        _find_out(root, each)


def _find_out(root: Root, other: OpenReservation) -> None:
    file, cost = other.file, None
    is_live = other.batch_id is not None and ResponseName(other.batch_id).is_live
    if other.is_stored and other.batch_id is not None:
        stored = stored_cost(root.storage, file.pipeline, other.batch_id)
        cost = stored.certain if stored is not None else None
    most: int | None = None
    if cost is None:
        try:
            most = _most_of(root, file, is_live=is_live)
        except (UnboundedCostError, FileNotFoundError, DamagedFileError):
            most = NO_BOUND
    with root.ledger.write(file.pipeline) as tx:
        if cost is None:
            if not is_live:
                reservations.keep_worst_case(tx, file.id, None if most == NO_BOUND else most)
            reservations.compute(tx, other.id, Amounts(most, most))
        if other.is_stored and other.batch_id is not None:
            reservations.settle(tx, other.batch_id, cost)


def _amounts(tx: Transaction, file: RequestFile) -> Amounts:
    mean = reservations.mean_cost(tx, file.pipeline)
    worst = file.worst_case if file.worst_case is not None else NO_BOUND
    expected = budgets.amount(file, Hold.EXPECTED, mean)
    return Amounts(worst, expected if expected is not None else NO_BOUND)


def _most_of(root: Root, file: RequestFile, *, is_live: bool = False) -> int:
    """Return the most that a whole request file can cost, see `most_of`."""
    stored, writes_cache = StoredRequestFile.of(root.storage, file), file.breakpoint is not None
    return most_of(stored, root.settings.prices, file.requests, writes_cache=writes_cache, is_live=is_live)
