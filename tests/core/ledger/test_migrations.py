"""Ledgers of earlier versions are upgraded when they are opened, even if a process is killed meanwhile."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from batch_assets.core.cancel import cancel
from batch_assets.core.errors import LedgerVersionError
from batch_assets.core.ledger import Ledger, batches, migrations, submissions, tables
from batch_assets.core.ledger.states import BatchState, EntityKind
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.results.retention import apply_retention
from batch_assets.core.results.run import collect_results
from tests.forked import ForkServer

from ..old_ledgers import SCRIPTS, create_tables, downgrade
from ..support import BATCHES, World, texts

_FIRST = Path(__file__).with_name("ledger_0001.sql").read_text()


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    with ForkServer(__name__) as server:
        yield server


def use(url: str) -> None:
    """Open the ledger, as every process does first."""
    ledger = Ledger(url)
    with ledger.write() as tx:
        tx.record(EntityKind.FILE, "any", None, "done", "")
    ledger.close()


def made_by(version: str, url: str) -> None:
    """Create a ledger as a version made it, with a submission."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        create_tables(connection, version)
        connection.execute(sa.text("insert into endpoint (id) values (1)"))
        connection.execute(sa.text(_SUBMISSION))
    engine.dispose()


_SENT_BATCH = (
    "insert into batch (id, file_id, pipeline, state, provisional, paid_twice, processing_status, requests, "
    "counts, submitted_at, next_poll_at, downloads) "
    "values ('b', 'sent', 'p', 'open', false, false, 'in_progress', 1, '{}', :at, 0, 0)"
)
_SUBMISSION = (
    'insert into submission (id, pipeline, "partition", created_at, "rows", rejected, requests, written, headers, '
    "max_attempts, max_requests, max_bytes, ask_again) values ('s', 'p', '', 0, 1, 0, 1, 1, '{}', 3, 10, 10, 0)"
)


def version_of(url: str) -> str | None:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        version = migrations.version_of(connection)
    engine.dispose()
    return version


def differences(url: str) -> Any:
    """Return the differences between the tables of a database and those of `tables.py`."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        options = {"version_table": "ledger_version", "compare_type": True, "compare_server_default": True}
        changes = compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata)
    engine.dispose()
    return changes


def shape(sql: str) -> set[str]:
    """Statements without the layout."""
    return {re.sub(r"\s+", " ", statement).strip() for statement in sql.split(";")} - {""}


def test_the_newest_script_has_the_version_of_the_tables() -> None:
    assert SCRIPTS.get_current_head() == migrations.HEAD


def test_the_first_script_makes_what_the_first_release_made(tmp_path: Path) -> None:
    made_by("0001", f"sqlite:///{tmp_path}/ledger.db")
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        statements = database.execute(
            "select sql from sqlite_master where sql not like '%sqlite_sequence%'"
        ).fetchall()
    assert shape(";".join(sql for (sql,) in statements)) == shape(_FIRST.split("\n\n", 1)[1])


@pytest.mark.parametrize("version", [None, *(script.revision for script in SCRIPTS.walk_revisions())])
def test_a_new_ledger_and_one_of_every_version_come_to_the_same_tables(
    ledger_url: str, version: str | None
) -> None:
    if version is not None:
        made_by(version, ledger_url)
    Ledger(ledger_url).close()
    assert differences(ledger_url) == []
    assert version_of(ledger_url) == migrations.HEAD


def test_the_rows_of_a_finished_pipeline_outlast_a_downgrade_and_the_upgrade_after_it(
    new_world: Callable[..., World], ledger_url: str
) -> None:
    """Benchmarks measure the upgrade of a ledger that is long and old. They make it in this way."""
    world = new_world(ledger=ledger_url)
    world.emulator.settings(latency=0)
    world.run(world.pipeline(texts(3)))
    statements = (
        "select id, counts, final_at from submission",
        "select id, state, collected_seq from request_file",
        "select id, file_id, outcome from intent",
        "select id, file_id, state, counts, submitted_at from batch",
        "select * from history order by seq",
    )
    before = [world.query(statement) for statement in statements]
    assert all(before)
    with world.root.ledger.write() as tx:
        downgrade(tx.connection, "0013")
    world.root.close()
    assert version_of(ledger_url) == "0013"
    world.reopened()
    assert [world.query(statement) for statement in statements] == before
    assert version_of(ledger_url) == migrations.HEAD
    assert differences(ledger_url) == []


def test_a_pipeline_continues_with_a_ledger_of_the_first_release(world: World) -> None:
    """A batch was running and a file left to send when the package was upgraded."""
    world.emulator.settings(latency=3600, queue_limit=4)
    pipeline = world.pipeline(texts(6), batching={"max_requests": 3})
    world.send(pipeline)
    assert world.states(pipeline) == ["submitted", "ready"]
    world.root.close()
    _downgrade_to_the_first_release(world.path("ledger.db"))
    world.emulator.settings(latency=0, queue_limit=None)
    world.emulator.end_batches()
    world.reopened()
    world.query("update request_file set not_before = 0")
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 6
    assert [batch["requests"] for batch in world.accepted()] == [3, 3]
    world.run(world.pipeline(texts(8)))
    assert len(world.accepted_custom_ids()) == len(set(world.accepted_custom_ids())) == 8


def test_a_submission_that_the_first_release_canceled_stays_canceled(world: World) -> None:
    world.emulator.settings(latency=3600, queue_limit=4)
    pipeline = world.pipeline(texts(6), batching={"max_requests": 3})
    world.send(pipeline)
    cancel(world.root, pipeline.name)
    assert world.states(pipeline) == ["submitted", "canceled"]
    with world.root.ledger.read() as tx:
        before = submissions.by_id(tx, world.files(pipeline)[0].submission_id)
    world.root.close()
    _downgrade_to_the_first_release(world.path("ledger.db"))
    world.reopened()
    with world.root.ledger.read() as tx:
        after = submissions.by_id(tx, before.id)
    assert (after.is_canceled, after.attempts_allowed) == (True, 0)
    assert after.canceled_at == pytest.approx(before.canceled_at, abs=5)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert len(world.accepted()) == 1
    assert list(world.table(pipeline)["result_type"]) == ["canceled"] * 6


@pytest.mark.parametrize("status", [404, 500])
def test_downloads_that_failed_in_the_first_release_keep_the_time_of_their_failure(
    world: World, status: int
) -> None:
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    world.emulator.end_batches()
    world.emulator.faults([{"match": {"path": f"{BATCHES}/*/results"}, "action": {"status": status}}])
    assert world.collect(pipeline).problems
    before = world.query("select failing_since, missing_since, results_refused from batch")
    assert before[0].results_refused == (status == 404)
    world.root.close()
    _downgrade_to_the_first_release(world.path("ledger.db"))
    world.reopened()
    assert world.query("select failing_since, missing_since, results_refused from batch") == before
    assert before[0][0] is not None
    world.emulator.reset_faults()
    world.collect(pipeline)
    (collected,) = world.query("select state, failing_since, missing_since, results_refused from batch")
    assert tuple(collected) == ("collected", None, None, False)


@pytest.mark.parametrize("version", ["0001", "0002", "0003", "0004"])
def test_a_cancel_and_failing_downloads_get_columns_of_their_own(ledger_url: str, version: str) -> None:
    made_by(version, ledger_url)
    engine = sa.create_engine(ledger_url)
    with engine.begin() as connection:
        for submission_id in ("canceled", "of a lost history"):
            canceled = _SUBMISSION.replace("'s'", f"'{submission_id}'").replace(", 3, 10", ", 0, 10")
            connection.execute(sa.text(canceled))
        for kind, entity, state in (("submission", "canceled", "canceled"), ("file", "canceled", "canceled")):
            values = {"at": 50.0 if kind == "submission" else 1.0, "kind": kind, "entity": entity, "state": state}
            connection.execute(sa.text(_TRANSITION), values)
        for number, (state, missing_since) in enumerate(_MISSING):
            values = {"id": f"b{number}", "state": state, "missing_since": missing_since}
            connection.execute(sa.text(_BATCH), values)
    engine.dispose()
    ledger = Ledger(ledger_url)
    with ledger.read() as tx:
        untouched, canceled, undated = (
            submissions.by_id(tx, name) for name in ("s", "canceled", "of a lost history")
        )
        upgraded = [batches.by_id(tx, f"b{number}") for number in range(len(_MISSING))]
    ledger.close()
    assert [(record.canceled_at, record.is_canceled) for record in (untouched, canceled, undated)] == [
        (None, False),
        (50.0, True),
        (undated.created_at, True),
    ]
    assert [record.max_attempts for record in (untouched, canceled, undated)] == [3, 1, 1]
    assert [(record.missing_since, record.failing_since, record.lost_since) for record in upgraded if record] == [
        (None, None, None),
        (10.0, None, 10.0),
        (20.0, None, 20.0),
        (None, None, None),
        (None, 30.0, 30.0),
        (None, None, None),
    ]


@pytest.mark.parametrize("version", ["0001", "0002", "0003", "0004", "0005"])
def test_downloads_and_deletions_get_times_of_their_own(ledger_url: str, version: str) -> None:
    made_by(version, ledger_url)
    engine = sa.create_engine(ledger_url)
    states = list(BatchState)
    with engine.begin() as connection:
        for number, state in enumerate(states):
            values = {"id": state, "state": state, "missing_since": None, "next_poll_at": 10.0 + number}
            connection.execute(sa.text(_BATCH.replace("0, 0)", ":next_poll_at, 0)")), values)
    engine.dispose()
    ledger = Ledger(ledger_url)
    with ledger.read() as tx:
        found = {state: batches.by_id(tx, state) for state in states}
    ledger.close()
    due = {state: 10.0 + number for number, state in enumerate(states)}
    downloads = {
        state: batch.next_download_at for state, batch in found.items() if batch and batch.next_download_at
    }
    deletions = {state: batch.next_delete_at for state, batch in found.items() if batch and batch.next_delete_at}
    assert downloads == {BatchState.ENDED: due[BatchState.ENDED]}
    assert deletions == {state: due[state] for state in (BatchState.COLLECTED, BatchState.DELETING)}
    assert {state: batch.next_look_at for state, batch in found.items() if batch and state.uncollected} == {
        state: due[state] for state in states if state.uncollected
    }


def test_a_download_and_a_deletion_that_the_first_release_put_off_stay_so(world: World) -> None:
    first, second = (world.pipeline(texts(2, name), name=name) for name in ("first", "second"))
    for pipeline in (first, second):
        world.send(pipeline)
    world.emulator.end_batches()
    world.finish(second)
    world.emulator.faults(
        [
            {"match": {"path": f"{BATCHES}/*/results"}, "action": {"status": 500}},
            {"match": {"method": "DELETE"}, "action": {"status": 500}},
        ]
    )
    assert world.collect(first).problems
    assert apply_retention(world.root, "second", RetentionConfig(batches_days=0))
    before = world.query("select state, next_download_at, next_delete_at from batch order by pipeline")
    assert [row.state for row in before] == ["ended", "deleting"]
    world.root.close()
    _downgrade_to_the_first_release(world.path("ledger.db"))
    world.reopened()
    after = world.query("select state, next_download_at, next_delete_at from batch order by pipeline")
    assert (after[0].next_download_at, after[1].next_delete_at) == (
        before[0].next_download_at,
        before[1].next_delete_at,
    )
    with world.root.ledger.read() as tx:
        assert before[0].next_download_at > tx.now
        assert before[1].next_delete_at > tx.now
    world.forget_calls()
    collect_results(world.root, "first", due_only=True)
    assert apply_retention(world.root, "second", RetentionConfig(batches_days=0)) == []
    assert world.calls().total() == 0, "it is not their time"


@pytest.mark.parametrize("version", ["0001", "0002", "0003", "0004", "0005", "0006"])
def test_cancels_and_refused_results_get_columns_of_their_own(ledger_url: str, version: str) -> None:
    made_by(version, ledger_url)
    failing_since = "missing_since" if version < "0005" else "failing_since"
    refused = (
        "results of b: HTTP 404. Does ANTHROPIC_API_KEY belong to the workspace that submitted it? A later run "
        "downloads them again"
    )
    failed = "results of b: no connection; the next run downloads them again"
    canceled = "canceled by a person"
    histories = {
        "canceling": (
            "open",
            [(20.0, "open", "canceling", "the API reports canceling"), (30.0, "x", "y", canceled)],
        ),
        "ended at once": ("ended", [(40.0, "open", "ended", canceled)]),
        "of a canceled file": ("open", []),
        "refused": ("ended", [(1.0, "ended", "ended", failed), (2.0, "ended", "ended", refused)]),
        "refused before": ("ended", [(1.0, "ended", "ended", refused), (2.0, "ended", "ended", failed)]),
        "refused, then collected": ("collected", [(1.0, "ended", "ended", refused)]),
    }
    line = _TRANSITION.replace("'began'", ":before").replace("'canceled by a person'", ":reason")
    engine = sa.create_engine(ledger_url)
    with engine.begin() as connection:
        for batch_id, (state, lines) in histories.items():
            values = {"id": batch_id, "state": state, "missing_since": 1.0 if "refused" in batch_id else None}
            connection.execute(sa.text(_BATCH.replace("missing_since, ", f"{failing_since}, ", 1)), values)
            for at, before, after, reason in lines:
                values = {"at": at, "kind": "batch", "entity": batch_id, "before": before, "state": after}
                connection.execute(sa.text(line), values | {"reason": reason})
        file = {"at": 50.0, "kind": "file", "entity": "of a canceled file", "before": "ready", "state": "canceled"}
        connection.execute(sa.text(line), file | {"reason": canceled})
    engine.dispose()
    ledger = Ledger(ledger_url)
    with ledger.read() as tx:
        upgraded = {batch_id: batches.by_id(tx, batch_id) for batch_id in histories}
    ledger.close()
    canceled_at = {key: batch.canceled_at for key, batch in upgraded.items() if batch and batch.canceled_at}
    assert canceled_at == {"canceling": 20.0, "ended at once": 40.0}
    assert [key for key, batch in upgraded.items() if batch and batch.results_refused] == ["refused"]


@pytest.mark.parametrize("version", ["0006", "0023"])
def test_a_refresh_that_waits_is_known_to_have_left_the_table_as_it_was(ledger_url: str, version: str) -> None:
    made_by(version, ledger_url)
    engine = sa.create_engine(ledger_url)
    columns = {
        "waits": "0, '{}', null",
        "not joined": "0, null, null",
        "final": "0, '{}', 1",
        "no refresh": "null, '{}', null",
    }
    with engine.begin() as connection:
        for name, values in columns.items():
            refresh = _SUBMISSION.replace("'s'", f"'{name}'").replace("10, 10, 0)", f"10, 10, 0, {values})")
            refresh = refresh.replace("ask_again)", "ask_again, fresh_after, counts, final_at)")
            connection.execute(sa.text(refresh.replace(":", "\\:")))
    engine.dispose()
    ledger = Ledger(ledger_url)
    with ledger.read() as tx:
        held_back = [name for name in ("s", *columns) if submissions.by_id(tx, name).held_back]
    ledger.close()
    assert held_back == ["waits"]


def test_a_batch_that_the_first_release_canceled_is_sent_again_by_a_later_submission(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    cancel(world.root, pipeline.name)
    world.send(pipeline)
    canceled = _canceled_before(world, pipeline.name)
    assert len(canceled) == 1
    world.root.close()
    _downgrade_to_the_first_release(world.path("ledger.db"))
    world.reopened()
    assert _canceled_before(world, pipeline.name) == canceled
    world.emulator.settings(latency=0)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 2


def _canceled_before(world: World, pipeline: str) -> set[str]:
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline, "")
        assert submission is not None
        return batches.canceled_before(tx, submission)


_TRANSITION = (
    "insert into history (at, process, kind, entity, from_state, to_state, reason) "
    "values (:at, 'host:1', :kind, :entity, 'began', :state, 'canceled by a person')"
)
_BATCH = (
    "insert into batch (id, state, provisional, paid_twice, processing_status, requests, counts, missing_since, "
    "next_poll_at, downloads) values (:id, :state, false, false, 'ended', 1, '{}', :missing_since, 0, 0)"
)
_MISSING = [
    ("open", None),
    ("open", 10.0),
    ("unreachable", 20.0),
    ("ended", None),
    ("ended", 30.0),
    ("collected", 40.0),
]


def _downgrade_to_the_first_release(path: Path) -> None:
    """Replace the ledger with one of the first release that has the same rows."""
    now = path.with_name("now.db")
    path.rename(now)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(_FIRST)
        database.execute("attach ? as now", [str(now)])
        tables_of = "select name from main.sqlite_master where type = 'table' and name not like 'sqlite_%'"
        for (table,) in database.execute(tables_of).fetchall():
            names = [f'"{row[1]}"' for row in database.execute(f'pragma main.table_info("{table}")')]
            columns = ", ".join(names)
            database.execute(f'insert into main."{table}" ({columns}) select {columns} from now."{table}"')
        database.execute(
            "update submission set max_attempts = 0 where id in "
            "(select id from now.submission where canceled_at is not null)"
        )
        database.execute(
            "update history set reason = replace(reason, 'Does the API key', 'Does ANTHROPIC_API_KEY')"
        )
        database.execute(
            "update batch set missing_since = "
            "(select coalesce(missing_since, failing_since) from now.batch as same where same.id = batch.id), "
            "next_poll_at = (select case when state = 'ended' then next_download_at when state in "
            "('collected', 'deleting') then next_delete_at else next_poll_at end "
            "from now.batch as same where same.id = batch.id)"
        )
        database.commit()


def test_several_processes_open_an_old_ledger_at_once(ledger_url: str, children: ForkServer) -> None:
    made_by("0001", ledger_url)
    outcomes = children.run(*[(f"{__name__}:use", {"url": ledger_url})] * 4)
    assert not any(outcome.error for outcome in outcomes), "\n".join(outcome.error for outcome in outcomes)
    assert differences(ledger_url) == []
    engine = sa.create_engine(ledger_url)
    with engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from history")).scalar() == 4
        assert connection.execute(sa.text("select count(*) from ledger_version")).scalar() == 1
        assert connection.execute(sa.text("select id from submission")).scalar() == "s"
    engine.dispose()


def test_a_process_killed_while_it_upgrades_leaves_the_ledger_as_it_was(
    ledger_url: str, children: ForkServer
) -> None:
    made_by("0001", ledger_url)
    versions = []
    for boundary in count(1):
        (outcome,) = children.run((f"{__name__}:use", {"url": ledger_url}), die_at=boundary)
        if not outcome.killed:
            break
        versions.append(version_of(ledger_url))
        if versions[-1] == migrations.HEAD:
            assert differences(ledger_url) == []
    assert not outcome.error
    # Also if it was killed after all statements of the upgrade, with none committed.
    assert versions.count("0001") >= 4
    assert versions == sorted(versions)
    assert set(versions) == {"0001", migrations.HEAD}


def test_a_ledger_of_a_later_version_is_refused(ledger_url: str) -> None:
    Ledger(ledger_url).close()
    engine = sa.create_engine(ledger_url)
    with engine.begin() as connection:
        connection.execute(sa.text("update ledger_version set version_num = '9999'"))
    engine.dispose()
    if ledger_url.startswith("postgresql"):  # where the URL may hold the password elsewhere too
        url = sa.make_url(ledger_url)
        own = url.set(username=None, password=None, query={"user": str(url.username), "password": "RECOGNIZE-ME"})
        ledger_url = own.render_as_string(hide_password=False)
    with pytest.raises(LedgerVersionError, match=r"have version 9999, .* Upgrade batch_assets here too") as caught:
        Ledger(ledger_url)
    assert "RECOGNIZE" not in str(caught.value)
    assert version_of(ledger_url) == "9999"


def test_submissions_that_were_superseded_before_the_upgrade_are_known(ledger_url: str) -> None:
    made_by("0013", ledger_url)
    engine = sa.create_engine(ledger_url)
    with engine.begin() as connection:
        for number, (name, partition) in enumerate([("t", ""), ("u", "other"), ("v", "")], 1):
            row = _SUBMISSION.replace("'s', 'p', '', 0", f"'{name}', 'p', '{partition}', {number}")
            connection.execute(sa.text(row))
    engine.dispose()
    ledger = Ledger(ledger_url)
    with ledger.read() as tx:
        times = dict(tx.execute(sa.select(tables.submission.c.id, tables.submission.c.superseded_at)).all())
        in_force = [submission.id for submission in submissions.all_newest(tx)]
    ledger.close()
    assert times == {"s": 1.0, "t": 3.0, "u": None, "v": None}
    assert in_force == ["u", "v"]


def test_what_was_sent_before_the_upgrade_counts_in_budgets(ledger_url: str) -> None:
    """On the day on which it was sent, as open: the cost is read when there is a budget."""
    made_by("0018", ledger_url)
    noon = 20_000 * 86_400.0 + 43_200.0
    file = (
        'insert into request_file (id, submission_id, pipeline, "partition", name, requests, bytes, attempt, '
        "state, not_before) values (:id, 's', 'p', '', :id, 1, 1, 1, :state, 0)"
    )
    columns = "file_id, requests, bytes, started_at, outcome"
    intent = f"insert into intent ({columns}) values ('doubt', 1, 1, :at, 'unresolved')"
    engine = sa.create_engine(ledger_url)
    with engine.begin() as connection:
        for id_, state in (("sent", "submitted"), ("doubt", "unresolved"), ("unsent", "ready")):
            connection.execute(sa.text(file), {"id": id_, "state": state})
        connection.execute(sa.text(_SENT_BATCH), {"at": noon})
        connection.execute(sa.text(intent), {"at": noon + 86_400})
    engine.dispose()
    ledger = Ledger(ledger_url)
    with ledger.read() as tx:
        counted = tables.reservation.c
        rows = tx.execute(sa.select(counted.file_id, counted.batch_id, counted.day, counted.state)).all()
    ledger.close()
    assert sorted(map(tuple, rows)) == [("doubt", None, 20_001, "open"), ("sent", "b", 20_000, "open")]


def test_the_clock_goes_on_after_the_upgrade(ledger_url: str) -> None:
    made_by("0014", ledger_url)
    ahead = 9e9
    engine = sa.create_engine(ledger_url)
    with engine.begin() as connection:
        connection.execute(sa.text("insert into clock values (1, 'another start', 5.0, 9e9, 7.0)"))
    engine.dispose()
    ledger = Ledger(ledger_url)
    with ledger.write("p") as tx:
        assert tx.now >= ahead
    with ledger.read() as tx:
        rows = tx.execute(sa.select(tables.clock.c.pipeline, tables.clock.c.offset)).all()
        assert tx.now >= ahead
    ledger.close()
    assert dict(rows).keys() == {"", "p"}
    assert dict(rows)[""] == 7.0


def test_a_database_that_holds_the_tables_of_another_project_is_shared(ledger_url: str) -> None:
    """Dagster's own storage writes its version into `alembic_version`."""
    engine = sa.create_engine(ledger_url)
    with engine.begin() as connection:
        connection.execute(sa.text("create table alembic_version (version_num varchar(32) not null)"))
        connection.execute(sa.text("insert into alembic_version values ('63d7a8ec641a')"))
    made_by("0001", ledger_url)
    Ledger(ledger_url).close()
    assert version_of(ledger_url) == migrations.HEAD
    with engine.connect() as connection:
        assert connection.execute(sa.text("select version_num from alembic_version")).scalar() == "63d7a8ec641a"
    engine.dispose()


def test_a_ledger_that_is_up_to_date_is_opened_without_alembic_and_without_writing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger(url).close()
    check = (
        "import sys; from batch_assets.core.ledger import Ledger; Ledger(sys.argv[1]).close(); "
        "print('alembic' in sys.modules)"
    )
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        done = subprocess.run([sys.executable, "-c", check, url], capture_output=True, text=True, timeout=20)
    assert done.stdout == "False\n", done.stderr
