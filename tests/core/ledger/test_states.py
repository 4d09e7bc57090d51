"""States: one table of legal moves, one function that moves, and no state that is written as a string."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import batch_assets
from batch_assets.core.errors import LeaseLostError, MoveRefusedError
from batch_assets.core.ledger import Ledger, Transaction, intents, joins, states, submissions, tables
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.states import (
    FILES_IN_DOUBT,
    FILES_IN_FLIGHT,
    BatchMove,
    BatchState,
    EntityKind,
    FileMove,
    FileState,
    Move,
    SubmissionMove,
    SubmissionState,
)
from tests.state_diagrams import PAGE, diagram, drawn

from ..observer import BATCH_MOVES, FILE_MOVES
from .state_literals import literals_in, takers

_PACKAGE = Path(batch_assets.__file__).parent
_TABLES: list[tuple[type[Move], type[StrEnum]]] = [
    (FileMove, FileState),
    (BatchMove, BatchState),
    (SubmissionMove, SubmissionState),
]
_MOVES = [step for moves, _ in _TABLES for step in moves]
_SUBMISSION = {
    **dict.fromkeys(("rows", "rejected", "requests", "written", "max_attempts", "max_requests", "max_bytes"), 1),
    "pipeline": "p",
    "partition": "",
    "headers": "{}",
    "ask_again": 0,
}
_COLUMNS: dict[type[Move], dict[str, Any]] = {
    FileMove: {
        "submission_id": "s",
        "pipeline": "p",
        "partition": "",
        "name": "part.jsonl",
        "requests": 1,
        "bytes": 1,
        "attempt": 1,
    },
    BatchMove: {"processing_status": "in_progress", "requests": 1, "counts": "{}"},
    SubmissionMove: _SUBMISSION,
}
_ENTITIES = {
    FileMove: EntityKind.FILE,
    BatchMove: EntityKind.BATCH,
    SubmissionMove: EntityKind.SUBMISSION,
}
_SINCE: dict[str, dict[str, float]] = {
    "registered": {},
    "began": {"began_at": 2.0},
    "canceled": {"began_at": 2.0, "canceled_at": 3.0},
    "final": {"began_at": 2.0, "final_at": 3.0},
}


# --- The table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("moves", "kind"), _TABLES)
def test_every_state_has_a_way_in_and_every_move_is_between_states_of_its_own_kind(
    moves: type[Move], kind: type[StrEnum]
) -> None:
    assert {step.after for step in moves} == set(kind)
    for step in moves:
        assert set(step.before) <= {None, *kind}
        assert {type(state) for state in (step.after, *step.before)} <= {kind, type(None)}
        assert step.event
        assert not set(step.event) & set(":;\n"), "an arrow of a diagram cannot have this label"


def test_the_campaigns_judge_allows_no_move_that_the_table_does_not_have() -> None:
    """The judge has its own list of moves that a run may show. A disproved batch may be met again."""
    files = {(before, step.after) for step in FileMove for before in step.before}
    assert files >= FILE_MOVES
    known = {(before, step.after) for step in BatchMove for before in step.before}
    again = {("disproved", after) for before, after in known if before is None}
    assert known | again >= BATCH_MOVES


@pytest.mark.parametrize(("module", "count"), [(states, 9), (intents, 1)])
def test_every_state_is_documented(module: Any, count: int) -> None:
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    kinds = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.bases[0].id == "StrEnum"]  # type: ignore[attr-defined]
    assert len(kinds) == count
    for kind in kinds:
        assert ast.get_docstring(kind), kind.name
        for part, following in zip(kind.body, kind.body[1:], strict=False):
            if isinstance(part, ast.Assign):
                assert isinstance(following, ast.Expr), ast.unparse(part)
                assert isinstance(following.value, ast.Constant), ast.unparse(part)


# --- The one function that moves --------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    yield opened
    opened.close()


def _put(tx: Transaction, kind: type[Move], before: str | None) -> None:
    """Add an entity in a state, without the function under test."""
    values = {"id": "s", "created_at": 1.0, **_SUBMISSION}
    if kind is SubmissionMove:
        if before is not None:
            tx.execute(sa.insert(tables.submission).values(values | {"id": "x"} | _SINCE[before]))
        return
    tx.execute(sa.insert(tables.submission).values(values))
    if before is not None:
        table = tables.request_file if kind is FileMove else tables.batch
        tx.execute(sa.insert(table).values(id="x", state=before, **_COLUMNS[kind]))


def _state(tx: Transaction, kind: type[Move]) -> str | None:
    if kind is SubmissionMove:
        known = submissions.known_ids(tx, "p")
        return submissions.by_id(tx, "x").state if "x" in known else None
    table = tables.request_file if kind is FileMove else tables.batch
    state: str | None = tx.execute(sa.select(table.c.state).where(table.c.id == "x")).scalar_one_or_none()
    return state


@pytest.mark.parametrize("step", _MOVES, ids=[f"{type(step).__name__}.{step.name}" for step in _MOVES])
def test_only_moves_in_the_table_are_made(ledger: Ledger, step: Move) -> None:
    kind = type(step)
    for before in (None, *dict(_TABLES)[kind]):
        with contextlib.suppress(_RolledBack), ledger.write() as tx:
            _put(tx, kind, before)
            _check_move(tx, step, before)
            raise _RolledBack


class _RolledBack(Exception):
    """Raised to roll a transaction back."""


def _check_move(tx: Transaction, step: Move, before: StrEnum | None) -> None:
    kind, values = type(step), _COLUMNS[type(step)] if before is None else {}
    if before in step.before:
        move(tx, step, "x", "why", **values)
        lines = [(_ENTITIES[kind], "x", before, str(step.after), "why")]
        after = _after_reopening(step) if kind is SubmissionMove else step.after
    else:
        with pytest.raises(MoveRefusedError) as refused:
            move(tx, step, "x", "why", **values)
        now = "not in the ledger" if before is None else before
        text = f"{_ENTITIES[kind]} x is {now}: it cannot become {step.after} ({step.event})"
        assert str(refused.value) == text
        lines, after = [], before
    history = tx.execute(sa.select(tables.history)).all()
    assert [(row.kind, row.entity, row.from_state, row.to_state, row.reason) for row in history] == lines
    assert _state(tx, kind) == after


def _after_reopening(step: Move) -> StrEnum:
    """A final submission in `_SINCE` had begun, and is in that state again when its `final_at` is cleared."""
    return SubmissionState.BEGAN if SubmissionState.FINAL in step.before else step.after


def test_a_late_writer_changes_nothing_of_what_its_transaction_wrote_before(ledger: Ledger) -> None:
    with ledger.write() as tx:
        _put(tx, FileMove, FileState.CANCELED)
    with pytest.raises(LeaseLostError), ledger.write() as tx:
        move(tx, FileMove.WRITE, "other", "why", **_COLUMNS[FileMove])
        move(tx, FileMove.INTEND, "x", "intent written")
    with ledger.read() as tx:
        assert tx.last_seq() == 0
        assert tx.execute(sa.select(tables.request_file.c.id)).scalars().all() == ["x"]


def test_a_submission_returns_to_its_earlier_state_when_rows_wait_again(ledger: Ledger) -> None:
    with ledger.write() as tx:
        for number, cancel in enumerate((False, True)):
            submission_id = f"s{number}"
            move(tx, SubmissionMove.REGISTER, submission_id, "built", **_SUBMISSION)
            if cancel:
                submissions.cancel(tx, submission_id, "canceled by a person")
            assert joins.joined(tx, submission_id, 1, {"succeeded": 1}, 0, [])
            submissions.began(tx, submission_id)  # of a complete one, nothing changes but that it has begun
            assert submissions.by_id(tx, submission_id).state is SubmissionState.FINAL
            assert not joins.joined(tx, submission_id, 1, {"pending": 1}, 0, [])
        returned = [submissions.by_id(tx, f"s{number}") for number in range(2)]
    assert [submission.state for submission in returned] == [SubmissionState.BEGAN, SubmissionState.CANCELED]
    assert all(submission.began_at is not None for submission in returned)


def test_an_unknown_state_is_refused_when_written_or_read(ledger: Ledger) -> None:
    with ledger.write() as tx:
        _put(tx, FileMove, FileState.READY)
    change = sa.update(tables.request_file)
    with pytest.raises(sa.exc.StatementError, match="'submited' is not a valid FileState"), ledger.write() as tx:
        tx.execute(change.values(state="submited"))
    with ledger.write() as tx:
        tx.execute(sa.text("update request_file set state = 'submited'"))
    with pytest.raises(ValueError, match="'submited' is not a valid FileState"), ledger.read() as tx:
        tx.execute(sa.select(tables.request_file)).one()


# --- The diagrams -----------------------------------------------------------------------------------------------


def test_the_diagrams_in_the_documentation_are_those_of_the_tables() -> None:
    page = PAGE.read_text("utf-8")
    assert drawn(page) == page, "make diagrams draws them"
    assert page.count("```mermaid") == len(_TABLES)
    with pytest.raises(LookupError, match="'The states of a batch'"):
        drawn(page.replace("## The states of a batch", "## Batches"))


def test_a_diagram_has_an_arrow_for_every_two_states() -> None:
    assert diagram([FileMove.WRITE, FileMove.WAIT, FileMove.RESEND]) == (
        "stateDiagram-v2\n"
        "    [*] --> ready: written\n"
        "    ready --> ready: not sent, or the API asks to wait\n"
        "    sending --> ready: not sent, or the API asks to wait / garbled in transit\n"
    )


def test_the_documentation_says_which_files_are_in_flight_and_in_doubt() -> None:
    for path in (PAGE, PAGE.with_name("glossary.md")):
        text = " ".join(path.read_text("utf-8").split())
        for kind, expected in (("in flight", FILES_IN_FLIGHT), ("in doubt", FILES_IN_DOUBT)):
            *others, last = (state.replace("_", " ") for state in expected)
            assert f"Files that are {', '.join(others)} or {last} are *{kind}*" in text, path


# --- No state is a string ---------------------------------------------------------------------------------------


def _sources() -> list[Path]:
    """The package, without the emulator, which knows nothing of the ledger, and old versions of its tables."""
    apart = (_PACKAGE / "emulator", _PACKAGE / "core/ledger/migrations")
    return [path for path in sorted(_PACKAGE.rglob("*.py")) if not any(map(path.is_relative_to, apart))]


@cache
def _trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text("utf-8")) for path in _sources()}


@cache
def _takers() -> set[str]:
    return takers(*_trees().values())


def test_no_state_is_written_as_a_string() -> None:
    assert len(_trees()) > 200
    literals = [
        f"{path.relative_to(_PACKAGE)}:{line}: {code}"
        for path, tree in _trees().items()
        for line, code in literals_in(tree, _takers())
    ]
    assert not literals, "\n".join(literals)


@pytest.mark.parametrize(
    "planted",
    [
        'file.state == "ready"',
        '"ready" != file.state',
        'file.state == "redy"',
        'state = file.state\nstate == "redy"',
        'row["state"] == "redy"',
        'file.state in ("ready", "sending")',
        'file.state not in {"ready"}',
        'batch.state is not "open"',
        'state in ("a", "b")',
        '(file.state, file.error) == ("ready", None)',
        'file.state.value == "ready"',
        'str(file.state) == "ready"',
        'row["state"] == "open"',
        'getattr(row, "state") == "open"',
        '_OPEN = ("open", "unreachable")\nfound = [b for b in batches if b.state in _OPEN]',
        'HELD = ["ready"]\nMORE = [*HELD, "sending"]\nfile.state in MORE',
        'select(batch).where(batch.c.state == "open")',
        'select(batch).where(batch.c.state.in_(["open", "ended"]))',
        'select(batch).where(batch.c.state.not_in(("open",)))',
        'NAMES = ("open",)\nselect(batch).where(batch.c.state.in_(NAMES))',
        'select(history).where(history.c.to_state == "collected")',
        'update(batch).values(state="ended")',
        'update(batch).values({"state": "ended"})',
        'values = {"state": "ended" if seen.ended else "open"}',
        'values["state"] = "unreachable"',
        'file.state = "superseded"',
        'file.state, file.why = "collected", why',
        'state = "ready"',
        'state: str = "ready"',
        'if (state := "ready"): pass',
        'setattr(file, "state", "ready")',
        'def f(state="ready"): pass',
        'def f(*, after: str = "ready"): pass',
        'move(tx, "ready", file_id, why)',
        'files.move(tx, file_id, ("ready", "sending"), "submitted", why)',
        'batches.in_state(tx, "open", pipeline=name)',
        'tx.record("batch", batch_id, "open", "ended", why)',
        'LostFile(submission, part, digests, 1, 1, 1, "unresolved", why)',
        'def _files(some, *states: FileState): pass\n_files(some, "refused", "stopped")',
        'def _first(entity, before, after): pass\n_first(batch.c.id, None, "ready")',
        'history.c.from_state == "ended"',
        '[file for file in files if "ready" == file.state]',
        'call(lambda file: file.state == "ready")',
        'states = Counter(file.state for file in files)\nstates["refused"]',
        'in_states = {batch.state for batch in mine}\n"open" in in_states',
        'now = files.by_id(tx, file_id).state\nif now == "ready": pass',
        '{"ready": 1}[file.state]',
        'WORDS = {"ready": "to send"}\nWORDS.get(file.state)',
        'file.state.startswith("re")',
        "match file.state:\n    case 'ready': pass\n    case 'sending' | 'unresolved': pass",
        "text(\"update batch set state = 'ended'\")",
        "text(\"select 1 from batch where state in ('ended')\")",
    ],
)
def test_a_state_that_is_written_as_a_string_is_found(planted: str) -> None:
    assert literals_in(ast.parse(planted), _takers())


@pytest.mark.parametrize(
    "innocent",
    [
        "file.state is FileState.READY",
        "file.state in (FileState.READY, FileState.SENDING)",
        'batch.state is BatchState.OPEN and batch.processing_status == "in_progress"',
        'row.result_type == "canceled"',
        'counts.get("pending", 0) == 0',
        'result_type in ("errored", "canceled")',
        'kind = "failed" if share > most else "complete"',
        "update(batch).values(state=BatchState.ENDED)",
        '{"state": batch.processing_status if batch.state is BatchState.OPEN else batch.state}',
        'columns = ["batch", "state", "requests"]',
        'move(tx, FileMove.STOP, file.id, "asked for again")',
        'tx.record("endpoint", base_url, None, "bound", why)',
        'print(f"{file.id} is {file.state}")',
        'history.c.to_state == "removed"',
        '_first(rows, ("errored", "canceled"))',
    ],
)
def test_other_strings_are_ignored(innocent: str) -> None:
    assert not literals_in(ast.parse(innocent), _takers())
