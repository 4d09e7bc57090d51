"""What is under the root of live calls, and a ledger that was lost or restored does not know."""

from __future__ import annotations

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.layout import calls_parts
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import Lease, batches, files, rescues, reservations, spend
from batch_assets.core.ledger.rescues import LiveGroup
from batch_assets.core.root import Root
from batch_assets.core.store.live_journal import LiveJournal, journals_of
from batch_assets.core.store.response_cost import stored_cost
from batch_assets.core.store.responses import open_responses, paid_at_of, reading_responses


def has_journals(root: Root, pipeline: str) -> bool:
    """Whether there are journals of live calls, known to the ledger or not."""
    return bool(root.storage.names(*calls_parts(pipeline)))


def record_traces(root: Root, pipeline: str, lease: Lease) -> None:
    """Record the live calls that the ledger does not know, and remove journals that are of no use any more.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        lease: The lease on the pipeline's live calls.
    """
    with root.ledger.read() as tx:
        known = {group.id for group in rescues.groups(tx, [pipeline])}
    names = map(ResponseName.parse, root.storage.file_names(pipeline, "responses"))
    for name in sorted(filter(None, names), key=str):
        if name.is_live:
            _record_stored(root, pipeline, lease, name)
    for journal in journals_of(root.storage, pipeline):
        if journal.group_id not in known:
            _record_journal(root, pipeline, lease, journal)


def _record_stored(root: Root, pipeline: str, lease: Lease, name: ResponseName) -> None:
    """Record answers that are stored. Those of a group that the ledger has open are left to who stores it."""
    with root.ledger.read() as tx:
        file = files.known(tx, str(name.asked_live[0])) if name.asked_live is not None else None
        is_known = file is None or name.stem in rescues.ids_of(tx, file.id)
    cost = None if is_known else stored_cost(root.storage, pipeline, name.stem)
    if file is None or cost is None:
        return
    with open_responses(root.storage, pipeline, name) as opened, reading_responses(root.storage, pipeline, name):
        paid_at, kinds = paid_at_of(opened), opened.read(columns=["result_type"], use_threads=False)["result_type"]
    counts = {entry["values"]: entry["counts"] for entry in kinds.value_counts().to_pylist()}
    with root.ledger.write(pipeline) as tx:
        lease.confirm(tx)
        reservations.reserve(tx, file, None, batch_id=name.stem, sent_at=paid_at or None)
        why = f"the ledger is older than the files under the root: live calls for {file.id} are stored"
        rescues.stored(tx, file, name.stem, counts, paid_at, why)
        spend.record(tx, name.stem, cost.total)
        reservations.settle(tx, name.stem, cost.certain)


def _record_journal(root: Root, pipeline: str, lease: Lease, journal: LiveJournal) -> None:
    """Record a group whose answers are not stored, or remove what is left of one."""
    try:
        header = journal.header()
    except DamagedFileError:
        return  # it stays, and `results` of its request file names it
    with root.ledger.read() as tx:
        file = files.known(tx, header.file_id) if header is not None else None
        is_stored = batches.by_id(tx, journal.group_id) is not None
    if header is None or is_stored:
        journal.remove()
    elif file is not None:
        calls = len(header.custom_ids)
        group = LiveGroup(journal.group_id, file.id, pipeline, calls, header.worst_case, header.started_at)
        with root.ledger.write(pipeline) as tx:
            lease.confirm(tx)
            rescues.restore(tx, file, group)
