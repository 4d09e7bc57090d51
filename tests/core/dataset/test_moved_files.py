"""Parquet files that have another name than on record are found by their content."""

from __future__ import annotations

from collections.abc import Callable

from batch_assets.core.dataset.column_kinds import CONTENTS, Kinds
from batch_assets.core.dataset.moved_files import named_as_now

RECORDED: Kinds = {"a": {"v": "number"}, "b": {"v": "text"}, CONTENTS: {"a": "1", "b": "2"}}


def files(contents: dict[str, str]) -> dict[str, Callable[[], str]]:
    return {name: lambda content=content: content for name, content in contents.items()}


def test_a_file_with_another_name_keeps_its_kinds() -> None:
    now = named_as_now(RECORDED, files({"c": "1", "b": "2"}))
    assert now == {"c": {"v": "number"}, "b": {"v": "text"}, CONTENTS: {"c": "1", "b": "2"}}


def test_two_files_may_change_names() -> None:
    now = named_as_now(RECORDED, files({"a": "2", "b": "1"}))
    assert now == {"b": {"v": "number"}, "a": {"v": "text"}, CONTENTS: {"b": "1", "a": "2"}}


def test_a_copy_that_is_on_record_itself_is_not_taken_for_the_renamed_file() -> None:
    recorded: Kinds = {"a": {"v": "number"}, "z": {"v": "text"}, CONTENTS: {"a": "1", "z": "1"}}
    now = named_as_now(recorded, files({"c": "1", "z": "1"}))
    assert now == {"c": {"v": "number"}, "z": {"v": "text"}, CONTENTS: {"c": "1", "z": "1"}}
