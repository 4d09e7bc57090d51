"""`batch-assets status` with many partitions: a summary, and more on request."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from batch_assets.cli import main
from batch_assets.core.ledger.bulk_history import HistoryLine, record_all
from batch_assets.core.ledger.states import EntityKind
from batch_assets.core.open_root import open_root
from benchmarks.ticks import counting

from .many_partitions import fill


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BATCH_ASSETS_ROOT", str(tmp_path / "root"))
    monkeypatch.delenv("BATCH_ASSETS_LEDGER", raising=False)


def status(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["status", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_pipeline_with_many_partitions_is_summed_up() -> None:
    fill("reviews", complete=40, running=12, unsent=8)
    fill("few", running=2)
    head, _, blocks = status().partition("\n\n")
    assert head.splitlines()[-1].startswith(
        "total       2 pipelines, 62 partitions: 8 needs user, 14 waiting, 40 complete; 400 of 620 rows, 64 %; "
        "14 batches not collected, which will end by "
    )
    summary, *each = blocks.split("\n\n")
    lines = summary.splitlines()
    assert re.fullmatch(r"reviews: 60 partitions, the newest from \d+ min ago", lines[0])
    shown = [(line[2:13].strip(), line[14:]) for line in lines[1:]]
    values = dict(shown)
    assert values["partitions"] == "40 complete, 12 waiting for the API to end its batches, 8 need you"
    assert values["rows"] == "600 rows; 600 distinct requests"
    assert values["done"] == "400 of 600 rows, 66 %"
    assert values["answered"] == "432 of 600 requests, 72 %"
    assert values["files"] == "40 collected, 12 submitted, 8 ready"
    assert values["batches"].startswith("40 collected, 12 open; oldest ")
    assert values["results"] == "360 succeeded, 40 errored"
    assert re.fullmatch(r"r0000, for \d+ min; it waits for the API to end its batches", values["oldest"])
    assert values["waits for"] == (
        "you: materialize reviews/batches, or: batch-assets run reviews --partition u0000; "
        "likewise for u0001, u0002, u0003, u0004 and 3 more. Details: batch-assets status reviews --partition KEY"
    )
    assert values["more"] == "batch-assets status reviews --partition KEY, or --all"
    assert [block.splitlines()[0] for block in each] == ["few [r0000]", "few [r0001]"]


def test_one_partition_and_all_of_them() -> None:
    fill("reviews", complete=51)
    one = status("reviews", "--partition", "a0007")
    assert "reviews [a0007]\n" in one and "a0008" not in one
    assert "No run of reviews [b] is recorded" in status("reviews", "--partition", "b")
    meant = "No run of reviews [a00007] is recorded (did you mean 'a0007'?)"
    assert meant in status("reviews", "--partition", "a00007")
    history = status("reviews", "--history", "--partition", "a00007")
    assert history == meant + "; add --resource KEY for a pipeline that has a `resource_key`.\n"
    assert "No run of reviews2 is recorded (did you mean 'reviews'?)" in status("reviews2")
    assert status("--all").count("\nreviews [a") == 51
    wrong = CliRunner().invoke(main, ["status", "--partition", "a0007"])
    assert wrong.exit_code == 2
    assert "--partition needs a pipeline: batch-assets status NAME --partition KEY" in wrong.output


def test_problems_name_the_first_partitions_that_have_them() -> None:
    fill("reviews", running=60)
    from sqlalchemy import text

    from batch_assets.core.ledger import standstills
    from batch_assets.core.open_root import open_root

    with open_root() as root, root.ledger.write() as tx:
        tx.execute(text("update request_file set state = 'refused' where partition < 'r0007'"))
        tx.execute(text("update batch set paid_twice = 1 where id like '%r0059'"))
        tx.execute(text("update request_file set error = 'gone' where partition = 'r0058'"))
        tx.execute(text("update submission set ask_again = 1 where partition = 'r0057'"))
        submission_id = tx.execute(text("select id from submission where partition = 'r0057'")).scalar_one()
        standstills.note(tx, submission_id, "a file is lost")
    errors = [line[14:] for line in status().splitlines() if line.startswith("  error")]
    assert errors == [
        "request files were refused: r0000, r0001, r0002, r0003, r0004 and 2 more",
        "stored answers are lost: r0058",
        "requests cannot be sent again: r0057",
        "a batch is paid twice: r0059",
    ]


def test_fifty_partitions_are_shown_one_by_one() -> None:
    fill("reviews", complete=50)
    assert status().count("\nreviews [a") == 50


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_summary_needs_no_more_statements_for_more_partitions(options: list[str]) -> None:
    seen = {}
    for partitions in (60, 1000):
        fill(f"of{partitions}", complete=partitions // 2, running=partitions // 4, unsent=partitions // 4)
        with counting() as statements:
            status(f"of{partitions}", *options)
        seen[partitions] = len(statements)
    assert seen[60] == seen[1000] <= 20


def test_the_same_as_json() -> None:
    fill("reviews", complete=40, running=12, unsent=8)
    fill("few", running=1)
    document = json.loads(status("--json"))
    assert list(document) == [
        "version",
        "at",
        "root",
        "ledger",
        "budgets",
        "permissions",
        "broken_files",
        "summary",
        "pipelines",
    ]
    many, few = document["pipelines"]
    total = document["summary"]
    assert (total["pipelines"], total["partitions"]) == (2, 61)
    assert total["states"] == {"needs_user": 8, "waiting": 13, "complete": 40}
    assert (many["name"], many["partitions"], many["summary"]["done"]) == ("reviews", [], 400)
    (one,) = few["partitions"]
    assert (one["partition"], one["state"], one["requests"], one["answered"]) == ("r0000", "waiting", 10, 6)
    assert one["waits_for"] == "the API to end its batches"
    (batch,) = one["running"]
    assert batch["counts"] == {"processing": 4, "succeeded": 6}
    assert one["ends_by"] == batch["expires_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["at"])
    in_full = json.loads(status("--json", "--all"))["pipelines"]
    assert [len(pipeline["partitions"]) for pipeline in in_full] == [60, 1]
    ends = [each["ends_by"] for pipeline in in_full for each in pipeline["partitions"] if each["ends_by"]]
    assert (len(ends), total["ends_by"]) == (13, max(ends))
    named = json.loads(status("reviews", "--partition", "a0007", "--json"))
    assert [each["complete_at"] is None for each in named["pipelines"][0]["partitions"]] == [False]


def test_a_long_history_begins_with_its_newest_lines() -> None:
    fill("reviews", complete=1)
    with open_root() as root, root.ledger.write() as tx:
        lines = [HistoryLine("20260101T000000-reviews0", "began", "standstill", f"try {at}") for at in range(1001)]
        record_all(tx, EntityKind.SUBMISSION, lines)
    done = CliRunner().invoke(main, ["status", "reviews", "--history"])
    assert [line.split("  ")[-2] for line in done.stdout.splitlines()] == [f"try {at}" for at in range(1, 1001)]
    assert done.stderr == (
        "These are the newest 1,000 lines. For all of them: batch-assets status reviews --history --all\n"
    )
    everything = CliRunner().invoke(main, ["status", "reviews", "--history", "--all"])
    assert (len(everything.stdout.splitlines()), everything.stderr) == (1001, "")
