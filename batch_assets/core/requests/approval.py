"""Whether a user has agreed already to what a run would send: it replaces files that were let go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.requests.confirmation import highest
from batch_assets.core.requests.estimate import Estimate, RecordedEstimate
from batch_assets.core.root import Root

# Estimates of the same requests differ a little once other answers are known.
_TOLERANCE = 0.05


def replaces_approved(
    root: Root,
    replaced: Sequence[RequestFile],
    prompts: Collection[str],
    estimates: Sequence[Estimate | None],
    *,
    requests: int,
    size: int,
) -> bool:
    """Whether requests only replace files with as many of the same prompt, which a user let be sent.

    They may not cost more than was estimated for the submissions that they replace. If a price is not known, their
    files may not be larger.

    Args:
        root: The root.
        replaced: The files that are set aside.
        prompts: The digests of the prompts of the requests.
        estimates: What they would cost, in parts; `None` for a part without requests.
        requests: The number of the requests.
        size: Bytes of their files.
    """
    if any(file.is_held_for_approval for file in replaced):
        return False
    with root.ledger.read() as tx:
        owners = submissions.by_ids(tx, sorted({file.submission_id for file in replaced}))
        before = submissions.that_need(tx, [file.id for file in replaced])
    if any(owner.began_at is None for owner in owners) or not _same_prompt(owners, prompts):
        return False
    if requests > sum(file.requests for file in replaced):
        return False
    approved = _recorded(each for each in before if each.began_at is not None)
    now = [estimate for estimate in estimates if estimate is not None]
    if all(each.is_known for each in approved) and all(each.is_known for each in now):
        return highest(now) <= highest(approved) * (1 + _TOLERANCE)
    return size <= sum(file.bytes for file in replaced) * (1 + _TOLERANCE)


def _same_prompt(owners: Iterable[Submission], prompts: Collection[str]) -> bool:
    estimates = [RecordedEstimate.of(owner.estimate) for owner in owners]
    return all(estimate is not None and estimate.prompt in prompts for estimate in estimates)


def _recorded(before: Iterable[Submission]) -> list[RecordedEstimate]:
    estimates = [RecordedEstimate.of(each.estimate) for each in before]
    return [estimate for estimate in estimates if estimate is not None]
