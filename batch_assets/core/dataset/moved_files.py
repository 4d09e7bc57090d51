"""Find Parquet files that are on record by their name again, by their content, when they have another name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from batch_assets.core.dataset.column_kinds import CONTENTS, Kinds


def named_as_now(recorded: Kinds, files: Mapping[str, Callable[[], str]]) -> Kinds:
    """Return the kinds on record with the groups of single files named as the files are named now.

    A file that has another content under the same name keeps its group, unless its former content is elsewhere.

    Args:
        recorded: The kinds on record.
        files: By the group of each file of the folder, what returns the digest of its content.
    """
    moved = {
        group: content
        for group, content in recorded.get(CONTENTS, {}).items()
        if group in recorded and (group not in files or files[group]() != content)
    }
    if not moved:
        return recorded
    candidates = {group: digest for group, digest in files.items() if group not in recorded or group in moved}
    groups = {digest(): group for group, digest in candidates.items()}
    renamed = {group: groups[content] for group, content in moved.items() if content in groups}
    kept = {group: kinds for group, kinds in recorded.items() if group not in renamed}
    contents = {group: content for group, content in recorded[CONTENTS].items() if group not in renamed}
    return (
        kept
        | {now: recorded[before] for before, now in renamed.items()}
        | {CONTENTS: contents | {now: moved[before] for before, now in renamed.items()}}
    )
