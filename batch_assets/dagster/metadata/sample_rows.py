"""A few rows of a results table, for metadata."""

from __future__ import annotations

import dagster as dg

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.quoting import shell_quoted
from batch_assets.core.results.shown_rows import first_answers, first_failed, first_unusable
from batch_assets.core.root import Root
from batch_assets.dagster.metadata import markdown

_SHOWN = 10


def sample_rows(
    root: Root, pipeline: Pipeline, partition: str, *, is_waiting: bool = False
) -> dg.MarkdownMetadataValue:
    """Return the first answers that can be used, with the row key. See `first_answers`."""
    return markdown.table(*first_answers(root, pipeline, partition, _SHOWN, is_waiting=is_waiting))


def failed_rows(
    root: Root, pipeline: Pipeline, partition: str, *, is_waiting: bool = False
) -> dg.MarkdownMetadataValue:
    """Return the first rows without an answer: the row key and the reason, and how to send them again."""
    shown = first_failed(root, pipeline, partition, _SHOWN, is_waiting=is_waiting)
    return markdown.table(*shown, note=_how_to_ask_again(pipeline.name, partition))


def unusable_answers(
    root: Root, pipeline: Pipeline, partition: str, *, is_waiting: bool = False
) -> dg.MarkdownMetadataValue:
    """Return the first answers that cannot be used: the row key, the reason and the answer."""
    return markdown.table(*first_unusable(root, pipeline, partition, _SHOWN, is_waiting=is_waiting))


def _how_to_ask_again(name: str, partition: str) -> str:
    suffix = f" for the partition {markdown.code(partition)}" if partition else ""
    option = f" --partition {shell_quoted(partition)}" if partition else ""
    command = markdown.code(f"batch-assets run {name}{option} --retry-failed")
    return (
        f"To send them again: launch the job `{name}_retry_failed`{suffix}, or {command}. "
        f"Rejected rows were never sent: fix the dataset, then materialize `{name}/requests`."
    )
