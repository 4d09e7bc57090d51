"""What is under the root of live calls, and a ledger that was lost or restored does not know."""

from __future__ import annotations

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.layout import calls_parts
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import Lease, batches, files, rescues, reservations, spend
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
    names = map(ResponseName.parse, root.storage.file_names(pipeline, "responses"))
    stored = sorted(name.stem for name in names if name is not None and name.is_live)
    with root.ledger.read() as tx:
        is_open = {group.id for group in rescues.groups(tx, [pipeline])}
        known = is_open | {batch.id for batch in batches.by_ids(tx, stored)}
    for stem in stored:
        if stem not in known:
            _record_stored(root, pipeline, lease, ResponseName(stem))
    for journal in journals_of(root.storage, pipeline):
        if journal.group_id not in is_open:
            _record_journal(root, pipeline, lease, journal)


def _record_stored(root: Root, pipeline: str, lease: Lease, name: ResponseName) -> None:
    """Record answers that are stored. Those of a group that the ledger has open are left to who stores it."""
    with root.ledger.read() as tx:
        file = files.known(tx, str(name.asked_live[0])) if name.asked_live is not None else None
    cost = stored_cost(root.storage, pipeline, name.stem) if file is not None else None
    if file is None or cost is None:
        return
    with open_responses(root.storage, pipeline, name) as opened, reading_responses(root.storage, pipeline, name):
        paid_at, kinds = paid_at_of(opened), opened.read(columns=["result_type"], use_threads=False)["result_type"]
    counts = {entry["values"]: entry["counts"] for entry in kinds.value_counts().to_pylist()}
    with root.ledger.write(pipeline) as tx:
        lease.confirm(tx)
        why = f"the ledger is older than the files under the root: live calls for {file.id} are stored"
        rescues.restore_stored(tx, file, name.stem, counts, paid_at, why)
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
        with root.ledger.write(pipeline) as tx:
            lease.confirm(tx)
            rescues.restore(tx, file, header.group(journal.group_id, pipeline))
