"""Build many partitions of a pipeline whose `batching.across_partitions` is set.

Partitions are built one after the other, each with a submission of its own. Of each, what does not fill a request
file goes into the file that the partition before it began. The submissions of such a group are registered at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import accumulate

from batch_assets.core.errors import FAILURES, BusyError, Failure, LeaseLostError
from batch_assets.core.io.memory import release_memory
from batch_assets.core.ledger import leases, submissions
from batch_assets.core.notify.notices import note_targets
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.build import BUILDS, not_registered
from batch_assets.core.requests.built_submission import BuiltSubmission
from batch_assets.core.requests.confirmation import Confirmation
from batch_assets.core.requests.gathered_files import GatheredFiles
from batch_assets.core.requests.inputs import BeforeBuild, holding_partition
from batch_assets.core.requests.partition_build import (
    PartitionBuild,
    checked_inputs,
    ignore_rows,
    readable,
    remove_old_hashes,
)
from batch_assets.core.requests.prompt_caching import PromptCaching
from batch_assets.core.requests.registration import Registrar, wait_for_stubs
from batch_assets.core.requests.report import AskAgain, RequestsReport
from batch_assets.core.requests.selection import Peers
from batch_assets.core.requests.unchanged import inputs_digest, located_files, unchanged_submission
from batch_assets.core.root import Root

# A group has at most so many partitions, each with a lease, and about so many requests, with digests in memory.
_PARTITIONS, _REQUESTS = 100, 1_000_000

Outcome = RequestsReport | Failure


def build_partitions(
    root: Root,
    pipeline: Pipeline,
    partitions: Sequence[str],
    again: AskAgain,
    on_partition: Callable[[str], None] | None = None,
    confirmation: Confirmation | None = None,
) -> dict[str, Outcome]:
    """Build the requests of some partitions, and gather those that do not fill a request file.

    A partition that fails does not stop the others, and none of its requests is sent.

    Args:
        root: The root.
        pipeline: The pipeline.
        partitions: The partition keys in order, each once. All runs must have the same order.
        again: What is sent again, and the limit.
        on_partition: Called with each partition that begins, perhaps more than once.
        confirmation: See `build_requests`. The sum of all partitions counts.

    Returns:
        By partition key what `build_requests` would return or raise.
    """
    outcomes: dict[str, Outcome] = {}
    confirmation = confirmation or Confirmation(pipeline)
    if pipeline.config.notify:
        note_targets(root, [pipeline])
    for partition in partitions:  # while no lease is held, because adding what is missing waits for all
        try:
            root.catch_up_for(pipeline.name, partition, leases.PATIENCE)
        except FAILURES as error:
            outcomes[partition] = error
    while left := [partition for partition in partitions if partition not in outcomes]:
        chosen = _next_group(root, pipeline.name, left[:_PARTITIONS])
        outcomes |= _Group(root, pipeline, chosen, again, on_partition or _ignore_partition, confirmation).build()
        release_memory()
    return outcomes


def _next_group(root: Root, pipeline: str, left: list[str]) -> list[str]:
    """Return the first partitions, as many as had a group's requests the last time.

    Partitions that share an unsent file are in one group, which can replace the file: they were one group before.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        left: The partitions in order.
    """
    with root.ledger.read() as tx:
        newest = {each.partition: each.requests for each in submissions.all_newest(tx, pipeline)}
        sharing = submissions.sharing_unsent(tx, pipeline, left)
    sizes = accumulate(newest.get(partition, 0) for partition in left)
    end = next((number for number, size in enumerate(sizes, 1) if size >= _REQUESTS), len(left))
    place = {partition: number for number, partition in enumerate(left, 1)}
    spans = sorted((min(map(place.__getitem__, some)), max(map(place.__getitem__, some))) for some in sharing)
    for first, last in spans:
        if first <= end:
            end = max(end, last)
    return left[:end]


def _ignore_partition(partition: str) -> None:
    """Do nothing with a partition that begins, for callers that show no progress."""


class _Group:
    """Partitions whose submissions are registered at once.

    Args:
        root: The root.
        pipeline: The pipeline.
        partitions: The partitions that may belong to it, in order. At least the first one is built.
        again: What is sent again, and the limit.
        on_partition: See `build_partitions`.
        confirmation: See `build_partitions`.
    """

    def __init__(
        self,
        root: Root,
        pipeline: Pipeline,
        partitions: Sequence[str],
        again: AskAgain,
        on_partition: Callable[[str], None],
        confirmation: Confirmation,
    ) -> None:
        self._confirmation = confirmation
        self._root, self._pipeline, self._again, self._on_partition = root, pipeline, again, on_partition
        self._left = [*partitions]
        self._outcomes: dict[str, Outcome] = {}
        self._held: dict[str, tuple[ExitStack, BeforeBuild]] = {}
        self._met: set[str] = set()

    def build(self) -> dict[str, Outcome]:
        """Build until nothing that the builds relied on has changed meanwhile.

        Returns:
            The outcomes of the partitions that belong to the group.
        """
        try:
            for _ in range(BUILDS):
                built = self._try()
                if not built:
                    return self._outcomes
                self._left = [each.partition for each in built]
        finally:
            for partition in [*self._held]:
                self._release(partition)
        return self._outcomes | {partition: not_registered(self._pipeline.name) for partition in self._left}

    def _try(self) -> list[BuiltSubmission]:
        """Build the partitions and register them.

        Returns:
            The submissions that have to be built again; empty if the outcomes of all are known.
        """
        peers, built = Peers(self._left), list[BuiltSubmission]()
        caching = PromptCaching.of(self._pipeline)
        with closing(GatheredFiles(peers)) as files:
            try:
                for partition in self._left:
                    if not self._is_held(partition):
                        if partition in self._outcomes:
                            continue
                        break
                    one = self._built(partition, peers, caching)
                    if caching is not None:
                        caching.keep_stubs_of([each.id for each in (*built, one) if each is not None])
                    if one is not None:
                        built.append(one)
                        files.add(one)
                    if self._is_full(built):
                        break
                files.publish()
            except FAILURES as error:  # of a file that several of them share
                self._remove(built)
                self._outcomes |= {each.partition: error for each in built}
                return []
            except BaseException:
                self._remove(built)
                raise
        return self._registered(built) if built else []

    def _built(self, partition: str, peers: Peers, caching: PromptCaching | None) -> BuiltSubmission | None:
        """Build a partition. Returns `None` if its outcome is known: it failed, or is as it was."""
        try:
            self._on_partition(partition)
            return self._build(partition, self._held[partition][1], peers, caching)
        except FAILURES as error:
            self._fail(partition, error)
            return None

    def _build(
        self, partition: str, before: BeforeBuild, peers: Peers, caching: PromptCaching | None
    ) -> BuiltSubmission | None:
        root, pipeline, again = self._root, self._pipeline, self._again
        if before.located is None:  # a build before has used them, and files may have come and gone since
            before = replace(before, located=located_files(pipeline, partition))
        self._held[partition] = self._held[partition][0], replace(before, located=None)
        digest = inputs_digest(pipeline, partition, before.located, before.erased)
        unchanged = unchanged_submission(root, before.newest, digest, again)
        if unchanged is not None:
            self._outcomes[partition] = unchanged
            self._release(partition)
            return None
        with checked_inputs(root, pipeline, partition, None, before, digest, again) as inputs:

            def run() -> BuiltSubmission:
                met = frozenset(self._met)
                build = PartitionBuild(
                    root, pipeline, partition, inputs, again, met=met, peers=peers, caching=caching
                )
                with closing(build):
                    return build.write(ignore_rows)

            built = readable(root, run)
        earlier = before.newest.record.fresh_after if before.newest is not None else None
        if built.manifest.fresh_after != earlier:
            peers.fresh_after = built.manifest.fresh_after
        return built

    def _is_full(self, built: Sequence[BuiltSubmission]) -> bool:
        """Whether these partitions are enough, and none of the others needs a file that they replace."""
        if sum(each.report.requests for each in built) < _REQUESTS:
            return False
        replaced = {file.id for each in built for file in each.chosen.set_aside}
        with self._root.ledger.read() as tx:
            unsent = submissions.unsent(tx, self._pipeline.name, [each.partition for each in built])
        return replaced <= {file.id for file in unsent}

    def _registered(self, built: Sequence[BuiltSubmission]) -> list[BuiltSubmission]:
        """Register submissions. Returns those that have to be built again."""
        wait_for_stubs(built)
        # Who has request files comes first: a process that is killed leaves no submission without those of others.
        registrar = Registrar(self._root, sorted(built, key=lambda each: not each.files), self._confirmation)
        try:
            is_registered = registrar.register()
        except LeaseLostError as error:
            with self._root.ledger.read() as tx:
                lost = {each.partition for each in built if not each.lease.is_ours(tx)}
            for partition in lost:
                self._fail(partition, error)
            return [each for each in built if each.partition not in lost]
        except FAILURES as error:
            self._outcomes |= {each.partition: error for each in built}
            return []
        self._met |= registrar.wanted
        if not is_registered:
            return [*built]
        for each in built:
            remove_old_hashes(self._root, self._held[each.partition][1])
            self._outcomes[each.partition] = each.report
        return []

    def _remove(self, built: Sequence[BuiltSubmission]) -> None:
        """Remove what was written."""
        if built:
            Registrar(self._root, built, self._confirmation).remove()

    def _is_held(self, partition: str) -> bool:
        """Hold the lease on a partition's requests until the group is done, and return whether it is held.

        Only the first one waits. Work on the whole pipeline waits for all leases that are held, and keeps others
        from being taken: if the group waited too, neither would go on. So the group ends before such a partition,
        which is the first one of the next group. Another error is the outcome of the partition.
        """
        if partition in self._held:
            return True
        stack, wait = ExitStack(), 0.0 if self._held else leases.PATIENCE
        try:
            before = stack.enter_context(holding_partition(self._root, self._pipeline, partition, wait))
        except BusyError as error:
            if not self._held:
                self._fail(partition, error)
            return False
        except FAILURES as error:
            self._fail(partition, error)
            return False
        self._held[partition] = stack, before
        return True

    def _release(self, partition: str, error: Failure | None = None) -> None:
        """Release the lease on a partition's requests, because of an error or without one.

        Raises:
            LeaseLostError: When a file was missing because another process has taken over.
        """
        if partition in self._held:
            stack, _ = self._held.pop(partition)
            stack.__exit__(type(error) if error is not None else None, error, None)

    def _fail(self, partition: str, error: Failure) -> None:
        """Record an error as the outcome of a partition. The others go on without it."""
        self._outcomes[partition] = error
        try:
            self._release(partition, error)
        except LeaseLostError as lost:
            self._outcomes[partition] = lost
