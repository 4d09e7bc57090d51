"""Downloads: shuffled, cut short, damaged or missing. A cut download never counts as complete."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import orjson
import pandas as pd
import pytest

from batch_assets.core.batches.poll import poll
from batch_assets.core.errors import SubmissionStoppedError
from batch_assets.core.remedies import CancelBatch
from batch_assets.core.results.run import CollectedResults, collect_results

from ..support import BATCHES, CREATE, LIST, RESULTS, World, params, texts

RETRIEVE = {"method": "GET", "path": f"{BATCHES}/msgbatch_{'?' * 24}"}


def spoil(world: World, times: int | None = None, **action: Any) -> None:
    """Damage the next downloads."""
    match = RESULTS | ({"times": times} if times else {})
    world.emulator.faults([{"match": match, "action": action}])


def collect(world: World, count: int = 6, **attributes: Any) -> CollectedResults:
    """Submit a number of rows and collect once."""
    pipeline = world.pipeline(texts(count), **attributes)
    world.send(pipeline)
    return world.collect(pipeline)


def an_hour_later(world: World) -> None:
    """Let failed downloads be old enough for missing answers to be given up."""
    world.query("update batch set failing_since = failing_since - 4000")


def responses(world: World) -> list[pd.DataFrame]:
    return [pd.read_parquet(path) for path in sorted(world.path("asked", "responses").glob("*"))]


def test_answers_come_in_any_order_and_are_stored_in_the_datasets(world: World) -> None:
    done = collect(world, 500)
    assert done.problems == []
    table = world.table(world.pipeline())
    assert list(table["id"]) == [f"row-{number}" for number in range(500)]
    for row in table.itertuples():
        assert row.text in row.response_text
    (stored,) = responses(world)
    assert list(stored["custom_id"]) == list(table["custom_id"])


def test_the_raw_message_is_kept_byte_for_byte(world: World) -> None:
    collect(world, 3)
    table = world.table(world.pipeline())
    for row in table.itertuples():
        message = orjson.loads(row.response_json)
        assert message["id"] == row.message_id
        assert message["content"][0]["text"] == row.response_text
        assert message["usage"]["input_tokens"] == row.input_tokens
        assert orjson.dumps(message).decode() == row.response_json


@pytest.mark.parametrize("ending", ["abort", "reset", "content_length", "clean", "chunked"])
@pytest.mark.parametrize("truncate", [{"fraction": 0.5}, {"fraction": 0.5, "at_line_end": True}, {"bytes": 0}])
def test_a_cut_download_is_repeated(world: World, ending: str, truncate: dict[str, Any]) -> None:
    spoil(world, times=1, truncate=truncate, ending=ending)
    done = collect(world)
    assert done.collected == []
    assert "again" in done.problems[0]
    assert not list(world.path("asked", "responses").glob("*.parquet"))
    table_before = world.table(world.pipeline())
    assert set(table_before["result_type"]) == {"pending"}
    world.finish(world.pipeline())
    assert list(world.table(world.pipeline())["result_type"]) == ["succeeded"] * 6
    assert len(world.accepted()) == 1


@pytest.mark.parametrize("ending", ["abort", "reset", "content_length"])
def test_a_connection_that_breaks_at_any_tenth_leaves_nothing_behind(world: World, ending: str) -> None:
    pipeline = world.pipeline(texts(5))
    world.send(pipeline)
    world.emulator.faults(
        [
            {
                "match": {**RESULTS, "nth": tenth + 1},
                "action": {"truncate": {"fraction": tenth / 10}, "ending": ending},
            }
            for tenth in range(10)
        ]
    )
    for _ in range(10):
        assert world.collect(pipeline).collected == []
    assert not list(world.path("asked", "responses").glob("*"))
    done = world.collect(pipeline)
    assert done.results is not None
    assert dict(done.results.counts) == {"succeeded": 5}
    assert len(world.accepted()) == 1


@pytest.mark.parametrize("ending", ["clean", "chunked"])
def test_a_download_that_ends_after_any_line_is_not_complete(world: World, ending: str) -> None:
    """Two such downloads at each line end: a third one, an hour later, would count as complete."""
    rows = 4
    for lines in range(rows):
        world.emulator.reset_faults()
        spoil(world, times=2, truncate={"lines": lines}, ending=ending)
        pipeline = world.pipeline(texts(rows, f"cut after {lines}"))
        world.send(pipeline)
        for number in (1, 2):
            (problem,) = world.collect(pipeline).problems
            if lines == 0:
                assert "the download is empty" in problem
                continue
            assert f"{lines} lines for {rows} requests" in problem
            assert f"download {number} of 3" in problem
        assert world.collect(pipeline).problems == []
        assert set(world.table(pipeline)["result_type"]) == {"succeeded"}
    assert len(world.accepted()) == rows


def test_failing_downloads_are_tried_less_and_less_often_and_never_given_up(world: World) -> None:
    spoil(world, truncate={"fraction": 0.5}, ending="reset")
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    waits = []
    for failing_for in (0, 50, 100, 1000, 10_000, 2_000_000):
        world.query(
            "update batch set failing_since = failing_since - :more, next_download_at = 0", more=failing_for
        )
        (problem,) = (
            collect_results(world.root, pipeline.name, due_only=True).problems
            if waits
            else (world.collect(pipeline).problems)
        )
        assert "broke off" in problem
        (row,) = world.query("select next_download_at - (select max(at) from history), state from batch")
        assert row[1] == "ended"
        waits.append(round(row[0], -1))
    assert waits == [60, 60, 150, 1150, 3600, 3600]
    world.forget_calls()
    collect_results(world.root, pipeline.name, due_only=True)
    assert world.calls().total() == 0, "it is not their time"
    world.emulator.reset_faults()
    world.collect(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}


def test_unusual_lines_are_understood(world: World) -> None:
    """Lone surrogates, separators, unknown keys, keys in another order, spaces between them."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.emulator.end_batches()
    first, second, third = world.accepted_custom_ids()

    def message(text: str) -> str:
        content = '[{"type":"text","text":"' + text + '"},{"type":"novel"}]'
        return '"message":{"id":"m","content":' + content + ',"usage":{"novel":{}}}'

    lines = [
        f'{{"custom_id":"{first}","result":{{"type":"succeeded",' + message("lone \\ud83d \u2028 end") + "}}",
        '{"novel":1,"result":{' + message("second") + f',"type":"succeeded","novel":[]}},"custom_id":"{second}"}}',
        f'{{ "custom_id" : "{third}", "result" : {{"type": "errored", "error": {{"type": "api_error"}}}} }}'
        + "\r",
    ]
    spoil(world, times=1, status=200, body="\n".join(lines) + "\n")
    assert world.collect(pipeline).problems == []
    table = world.table(pipeline).set_index("custom_id")
    assert table["response_text"][first] == "lone \ufffd \u2028 end"
    assert table["response_text"][second] == "second"
    assert table["result_type"][third] == "pending"  # an api_error is asked again
    (stored,) = responses(world)
    assert list(stored["error_type"].dropna()) == ["api_error"]


def test_the_key_follows_neither_a_results_url_nor_a_redirect(world: World) -> None:
    """No call may send the key to another host."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        elsewhere = f"http://127.0.0.1:{other.getsockname()[1]}/results"
        redirect = {"status": 307, "headers": {"location": elsewhere}}
        world.emulator.faults(
            [
                {"match": {"path": f"{BATCHES}*"}, "action": {"results_url": elsewhere}},
                *({"match": {**call, "nth": 2}, "action": redirect} for call in (CREATE, LIST, RESULTS, RETRIEVE)),
            ]
        )
        pipeline = world.pipeline(texts(2), batching={"max_requests": 1})
        world.build(pipeline)
        for _ in range(3):
            with suppress(SubmissionStoppedError):
                world.submit(pipeline)
        world.finish(pipeline)
        assert set(world.table(pipeline)["result_type"]) == {"succeeded"}
        met = [rule["hits"] for rule in world.emulator.control("faults")]
        assert met[1:] == [1, 1, 1, 1]
        with pytest.raises(BlockingIOError):
            other.accept()
    assert len(world.accepted()) == 2


def test_cut_connections_never_make_an_answer_missing(world: World) -> None:
    """A broken connection proves nothing about the results: the download is repeated without limit."""
    spoil(world, times=5, truncate={"fraction": 0.5}, ending="reset")
    pipeline = world.pipeline(texts(6))
    world.send(pipeline)
    for _ in range(5):
        assert world.collect(pipeline).collected == []
    done = world.collect(pipeline)
    assert done.results is not None
    assert dict(done.results.counts) == {"succeeded": 6}


@pytest.mark.parametrize("lines", [{"duplicate": 2}, {"foreign": 2}])
def test_extra_lines_are_reported_and_change_no_answer(world: World, lines: dict[str, int]) -> None:
    spoil(world, lines=lines)
    pipeline = world.pipeline(texts(6))
    world.send(pipeline)
    for number in (1, 2):
        assert f"download {number} of 3" in world.collect(pipeline).problems[0]
    done = world.collect(pipeline)
    assert done.collected[0].missing == 0
    assert ("2 not ours" if "foreign" in lines else "2 twice") in done.problems[0]
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["succeeded"] * 6
    assert all(row.text in row.response_text for row in table.itertuples())


def test_missing_lines_are_retried_after_three_downloads_and_an_hour(world: World) -> None:
    spoil(world, times=3, lines={"missing": 2})
    pipeline = world.pipeline(texts(6))
    world.send(pipeline)
    for _ in range(2):
        done = world.collect(pipeline)
        assert done.collected == []
        assert "2 of ours missing" in done.problems[0]
    an_hour_later(world)
    done = world.collect(pipeline)
    assert (done.collected[0].missing, done.results and done.results.ask_again) == (2, 2)
    assert sorted(world.table(pipeline)["result_type"]) == ["pending"] * 2 + ["succeeded"] * 4
    (stored,) = responses(world)
    assert list(stored["error_type"].dropna()) == ["missing_result"] * 2
    world.finish(pipeline)
    table = world.table(pipeline)
    assert set(table["result_type"]) == {"succeeded"}
    assert sorted(table["attempts"]) == [1, 1, 1, 1, 2, 2]
    assert [batch["requests"] for batch in world.accepted()] == [6, 2]


_SIGN_IN = "<html>\n<body>Sign in</body>\n</html>\n"
_NO_RESULTS = [
    {"status": 200, "body": _SIGN_IN},
    {"status": 200, "body": '{"error": "sign in"}\n'},
    {"truncate": {"bytes": 0}, "ending": "chunked"},
]


@pytest.mark.parametrize("provisional", [False, True])
@pytest.mark.parametrize("action", _NO_RESULTS, ids=["page", "JSON", "empty"])
def test_a_download_without_any_result_proves_nothing(
    world: World, action: dict[str, Any], provisional: bool
) -> None:
    """However often and however long it is answered so: the API has the answers, and they are paid for."""
    spoil(world, times=4, **action)
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.query("update batch set provisional = :is", **{"is": provisional})
    for _ in range(4):
        done = world.collect(pipeline)
        assert done.collected == []
        assert "A later run downloads them again" in done.problems[0]
        an_hour_later(world)
    assert world.query("select state, downloads from batch") == [("ended", 0)]
    world.finish(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}
    assert len(world.accepted()) == 1


def test_the_hour_of_missing_lines_begins_with_the_first_incomplete_download(world: World) -> None:
    spoil(world, status=200, body=_SIGN_IN)
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.collect(pipeline)
    an_hour_later(world)
    world.emulator.reset_faults()
    spoil(world, times=3, lines={"missing": 1})
    for number in (1, 2, 3):
        assert f"download {number}" in world.collect(pipeline).problems[0]
    world.finish(pipeline)
    assert len(world.accepted()) == 1


@pytest.mark.parametrize("how", ["garbage", "broken"])
def test_a_line_that_cannot_be_read_is_a_missing_result(world: World, how: str) -> None:
    """It counts as missing only after three downloads and an hour: the answer is paid for and may still come."""
    spoil(world, times=3, lines={how: 1})
    pipeline = world.pipeline(texts(4))
    world.send(pipeline)
    for number in (1, 2):
        assert f"download {number} of 3" in world.collect(pipeline).problems[0]
    an_hour_later(world)
    world.collect(pipeline)
    (stored,) = responses(world)
    assert list(stored["error_type"].dropna()) == ["missing_result"]
    world.finish(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}


def test_an_unknown_result_type_is_kept_as_an_error_and_not_retried(world: World) -> None:
    spoil(world, lines={"unknown_type": 1})
    pipeline = world.pipeline(texts(4))
    table = world.run(pipeline)
    odd = table[table["result_type"] == "errored"]
    assert list(odd["error_type"]) == ["unknown_result_type"]
    assert "'postponed'" in odd["error_message"].iloc[0]
    assert len(world.accepted()) == 1


def test_archived_results_are_named_and_not_retried(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.emulator.archive_batches()
    poll(world.root, now=True)
    (problem,) = collect_results(world.root, pipeline.name).problems
    ((batch_id,),) = world.query("select id from batch")
    table = world.run(pipeline)
    assert batch_id in problem
    assert all(custom_id in problem for custom_id in table["custom_id"])
    assert set(table["result_type"]) == {"errored"}
    assert set(table["error_type"]) == {"results_archived"}
    assert batch_id in table["error_message"][0]
    assert "29 days" in table["error_message"][0]
    assert len(world.accepted()) == 1


def test_results_that_are_not_there_yet_are_waited_for(world: World) -> None:
    spoil(world, times=2, status=404)
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    assert "404" not in world.collect(pipeline).problems[0]
    world.finish(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}


@pytest.mark.parametrize("status", [401, 500, 302])
def test_a_refused_download_is_reported_and_repeated_later(world: World, status: int) -> None:
    spoil(world, times=3, status=status)
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    assert f"HTTP {status}" in world.collect(pipeline).problems[0]
    world.finish(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}


@pytest.mark.parametrize(
    ("status", "message", "may_be_gone"),
    [
        (429, "too many requests", False),
        (429, "You have reached your specified API usage limits.", False),
        (400, "Your credit balance is too low", False),
        (400, "a bad request", True),
        (401, "no key", False),
        (402, "billing", False),
        (403, "forbidden", True),
        (404, "not found", True),
    ],
)
def test_a_refusal_that_is_not_about_the_batch_does_not_advise_to_cancel_it(
    world: World, status: int, message: str, may_be_gone: bool
) -> None:
    error = {"type": "invalid_request_error", "message": message}
    spoil(world, times=3, status=status, body={"type": "error", "error": error})
    pipeline = world.pipeline(texts(3))
    (batch_id,) = world.send(pipeline).submitted
    done = world.collect(pipeline)
    assert done.remedies == ([CancelBatch(batch_id, pipeline.name)] if may_be_gone else [])
    assert world.query("select results_refused from batch") == [(may_be_gone,)]


def test_separators_inside_texts_end_no_line(world: World) -> None:
    odd = {str(at): f"before{mark}after" for at, mark in enumerate("\u2028\u2029\x85\x0b\x0c\x1c\r\0\ufeff")}
    table = world.run(world.pipeline(odd))
    assert list(table["result_type"]) == ["succeeded"] * len(odd)
    for row in table.itertuples():
        assert odd[row.id] in row.response_text


def test_one_broken_batch_does_not_hold_up_the_others(world: World) -> None:
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    first, _ = world.send(pipeline).submitted
    world.emulator.faults([{"match": {"path": f"*/{first}/results"}, "action": {"status": 400}}])
    done = world.collect(pipeline)
    assert (len(done.collected), len(done.problems)) == (1, 1)
    assert list(world.table(pipeline)["result_type"]) == ["pending"] * 2 + ["succeeded"] * 2


def test_requests_that_validation_refuses_are_final(world: World) -> None:
    table = world.run(world.pipeline(texts(2), params=params(max_tokens=10_000_000)))
    assert list(table["error_type"]) == ["invalid_request_error"] * 2
    assert table["error_message"].str.contains("max_tokens").all()
    assert list(table["attempts"]) == [1, 1]
