"""Approve held request files: a user lets them go, whatever they cost and whatever their pilot brought.

If the pilot is not judged yet, only the pilot goes, and the rest waits for it: see `HoldReason.PILOT`.
"""

from __future__ import annotations

from batch_assets.core.batches.targets import submissions_of
from batch_assets.core.ledger import Transaction, holds, leases, pilots, submissions
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import HoldReason, PilotVerdict
from batch_assets.core.root import Root
from batch_assets.core.text import count

_REASON = "approved by a user"
# A report gives this many reasons why files were held. Each partition may have its own, with its amounts.
_REASONS = 3


def approve(root: Root, pipeline: str, partition: str | None = None) -> list[RequestFile]:
    """Let the held request files of a pipeline go that wait for approval. Repeating it changes nothing.

    That is the consent to send them: the sensor or a run does.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partition: The partition key; `None` for all partitions.

    Returns:
        The files that were let go.

    Raises:
        UnknownTargetError: When nothing was submitted for the pipeline or the partition.
        SettingsError: When the settings name no API. Nothing was changed.
        EndpointMismatchError: When the root belongs to another API. Nothing was changed.
    """
    root.catch_up(pipeline, partition, wait=leases.PATIENCE)
    submissions_of(root, pipeline, partition)
    root.check_endpoint()
    with root.ledger.write(pipeline) as tx:
        by_partition = holds.to_approve(tx, pipeline, partition)
        held = {file.id: file for files in by_partition.values() for file in files}
        for_pilot = _waiting_for_pilot(tx, pipeline, [*held.values()])
        let_go = [file for file in held.values() if file.id not in for_pilot]
        holds.release(tx, let_go, _REASON)
        pilots.hold_for(
            tx, [held[id_] for id_ in sorted(for_pilot)], HoldReason.PILOT, f"{_REASON}; {pilots.WAITS}"
        )
        submissions.begin_all(tx, pipeline, by_partition)
    return let_go


def describe_approved(approved: list[RequestFile]) -> list[str]:
    """Return lines of text about files that were let go: their number, and why they were held.

    Args:
        approved: What `approve` returned.
    """
    requests = sum(file.requests for file in approved)
    files = count(len(approved), "request file", "request files")
    reasons = list(dict.fromkeys(file.error for file in approved if file.error))
    more = [f"and {len(reasons) - _REASONS:,} more reasons"] if len(reasons) > _REASONS else []
    return [
        f"{files} with {count(requests, 'request')} approved",
        *(f"why they were held: {why}" for why in reasons[:_REASONS]),
        *more,
    ]


def _waiting_for_pilot(tx: Transaction, pipeline: str, held: list[RequestFile]) -> set[str]:
    """Return the ids of the files whose pilot is not judged. One that was left to a user is approved.

    The files of a pilot do not wait for it, nor do the stubs that they wait for themselves, nor files whose pilot
    was canceled and that no build can send with another one.
    """
    waiting: set[str] = set()
    for file_id, state in pilots.waited_for(tx, held).items():
        first = {id_ for file in state.files for id_ in (file.id, file.stub)}
        if state.pilot.verdict is PilotVerdict.ASK:
            pilots.approve(tx, state.pilot)
        elif state.pilot.verdict is not PilotVerdict.GO and file_id not in first:
            waiting.add(file_id)
    return waiting - {file.id for file in pilots.without_successor(tx, pipeline, held)}
