"""A row key that is a word of our own files is found only where it is the key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batch_assets.core.erase.own_words import is_own_word

from ..support import World
from .support import SECRET, erased, every_text

WORDS = (
    "succeeded",
    "ready",
    "submitted",
    "requests",
    "content",
    "result_type",
    "request_file",
    "end_turn",
    "user",
    "stored",
)


def test_words_of_our_files_are_no_finding(world: World) -> None:
    rows = dict.fromkeys(WORDS, SECRET) | {"other": "another prompt"}
    pipeline = world.pipeline(rows)
    world.run(pipeline)
    report = erased(world, pipeline, *WORDS)
    assert report.unsearched == []
    print(world.query("select reason from history"))
    assert list(report.open_ends()) == []
    assert SECRET not in every_text(world.path())


def test_a_word_of_our_files_is_found_as_a_value(world: World) -> None:
    rows = {"succeeded": SECRET, "ready": SECRET, "friend": "a friend of succeeded"}
    pipeline = world.pipeline(rows)
    world.run(pipeline)
    world.query("update history set reason = :text where seq = 1", text="the row 'ready' was lost")
    report = erased(world, pipeline, "succeeded", "ready")
    names = {Path(where).name for where in report.left}
    assert {"index.parquet", "part-00000.jsonl", "results.parquet", "history.reason"} <= names
    assert not names & {"ledger.db", "ledger.db-wal", "manifest.json"}


def test_a_word_of_our_files_is_found_in_json_of_the_ledger(world: World) -> None:
    pipeline = world.pipeline({"ready": SECRET, "other": "another prompt"})
    world.run(pipeline)
    world.query("update submission set examined = :text", text=json.dumps({"ready": 1, "state": "ready"}))
    assert erased(world, pipeline, "ready").left == []
    world.query("update submission set examined = :text", text=json.dumps({"first": ["ready"]}))
    assert erased(world, pipeline, "ready").left == ["submission.examined"]


@pytest.mark.parametrize("key", ["person-4711", "Zaphod Beeblebrox", "R-1042", "already"])
def test_other_keys_are_searched_for_everywhere(key: str) -> None:
    assert not is_own_word(key)


@pytest.mark.parametrize("key", WORDS)
def test_words_of_our_files_are_known(key: str) -> None:
    assert is_own_word(key)
