"""Gateways between us and the API: what they repeat, refuse and cache is neither paid again nor believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.cancel import cancel
from batch_assets.core.errors import SubmissionStoppedError, UnreachableError
from batch_assets.core.ledger.erasure import unsettled_files
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.results.run import collect_results

from ..gateway import Forward, Gateway, accepted_but, instead, repeated, repeated_first
from ..lost_ledger import add_refused_intent
from ..support import BATCHES, CREATE, LIST, World, texts
from .test_reconcile import submit_as_someone_else

LIMITED = b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}'
REFUSED = b'{"type":"error","error":{"type":"invalid_request_error","message":"no"}}'
HTML = b"<html><h1>Blocked by the firewall</h1></html>"
POST = "POST /v1/messages/batches"


@pytest.fixture
def gateway(prompt_retries: None, new_world: Callable[..., World]) -> Iterator[Gateway]:
    emulator = new_world(name="unused").emulator
    with Gateway(emulator.url) as running:
        yield running


@pytest.fixture
def behind(gateway: Gateway, new_world: Callable[..., World]) -> Callable[..., World]:
    """Makes worlds whose API is behind the gateway."""
    return lambda **more: new_world(BATCH_ASSETS_EMULATOR=gateway.url, **more)


@pytest.mark.parametrize("latency", [0, 3600])
@pytest.mark.parametrize(
    ("status", "body"),
    [(429, LIMITED), (429, b"slow down"), (400, REFUSED), (413, b"<html>too large</html>"), (404, REFUSED)],
)
def test_a_refusal_of_a_retry_does_not_hide_that_the_first_try_was_accepted(
    gateway: Gateway, behind: Callable[..., World], status: int, body: bytes, latency: int
) -> None:
    world = behind()
    world.emulator.settings(latency=latency)
    gateway.on("POST", BATCHES, accepted_but(status, body))
    pipeline = world.pipeline(texts(4))
    world.send(pipeline)
    world.emulator.end_batches()
    world.query("update request_file set not_before = 0")
    world.submit(pipeline)
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 4
    assert len(world.accepted()) == 1


def test_a_repeated_post_is_reported_although_a_later_upload_of_its_file_was_refused(
    gateway: Gateway, behind: Callable[..., World]
) -> None:
    """Such an upload has a later anchor, and the list that was read before it showed the repeating batch."""
    world = behind()
    gateway.on("POST", BATCHES, repeated)
    pipeline = world.pipeline(texts(4))
    world.send(pipeline)
    (ours,) = [id_ for (id_,) in world.query("select id from batch")]
    (other,) = [batch["id"] for batch in world.accepted() if batch["id"] != ours]
    add_refused_intent(world, other)
    world.finish(pipeline)
    assert dict(world.query("select id, paid_twice from batch")) == {ours: False, other: True}


def test_the_list_is_read_again_before_a_refused_file_is_sent_again(
    gateway: Gateway, behind: Callable[..., World]
) -> None:
    """At the refusal, the list did not show the batch yet."""
    world = behind()
    gateway.on("POST", BATCHES, accepted_but(429, LIMITED))
    empty = instead(200, b'{"data":[],"has_more":false,"first_id":null,"last_id":null}')
    gateway.on("GET", BATCHES, empty, times=2)  # the anchor, and the look at the refusal
    pipeline = world.pipeline(texts(4))
    world.send(pipeline)
    assert world.states(pipeline) == ["ready"]
    world.query("update request_file set not_before = 0")
    world.submit(pipeline)
    world.finish(pipeline)
    assert len(world.accepted()) == 1


@pytest.mark.parametrize("requests", [1, 4])
def test_a_file_that_was_split_although_it_was_accepted_is_found_later(
    gateway: Gateway, behind: Callable[..., World], requests: int
) -> None:
    """At the refusal as too large, the list did not show the batch yet, and the parts were sent at once."""
    world = behind()
    world.emulator.faults([{"match": LIST, "action": {"hide_from_list": 3600}}])
    gateway.on("POST", BATCHES, accepted_but(413, b"<html>too large</html>"))
    pipeline = world.pipeline(texts(requests))
    world.send(pipeline)
    whole, *parts = [batch["id"] for batch in world.accepted()]
    assert len(parts) == (2 if requests > 1 else 0)
    world.collect(pipeline)
    world.emulator.reset_faults()
    submit_batches(world.root, pipeline.name, unattended=True)
    world.collect(pipeline)
    assert dict(world.query("select id, paid_twice from batch")) == {
        whole: requests > 1,
        **dict.fromkeys(parts, 0),
    }
    assert world.query("select distinct state from batch") == [("collected",)]
    assert (world.path(pipeline.name, "responses") / f"{whole}.parquet").exists()


@pytest.mark.parametrize("repeat", [repeated, repeated_first])
@pytest.mark.parametrize("latency", [0, 3600])
def test_a_repeated_post_is_reported_and_its_answers_are_kept(
    gateway: Gateway, behind: Callable[..., World], repeat: Callable[..., object], latency: int
) -> None:
    world = behind()
    world.emulator.settings(latency=latency)
    gateway.on("POST", BATCHES, repeat)  # type: ignore[arg-type]
    pipeline = world.pipeline(texts(4))
    world.send(pipeline)
    ours = world.query("select id from batch")[0][0]
    world.emulator.end_batches(ours)
    world.finish(pipeline)
    if latency:  # the other one still runs: it is looked at again
        world.emulator.end_batches()
        submit_batches(world.root, pipeline.name, unattended=True)
        world.collect(pipeline)
    assert len(world.accepted()) == 2
    batches = dict(world.query("select id, paid_twice from batch"))
    assert batches == {batch["id"]: batch["id"] != ours for batch in world.accepted()}
    assert world.query("select distinct state from batch") == [("collected",)]
    assert len(list(world.path(pipeline.name, "responses").glob("*.parquet"))) == 2


def test_a_repeated_post_whose_reply_is_lost_is_no_batch_of_someone_else(
    gateway: Gateway, behind: Callable[..., World]
) -> None:
    def lost(forward: Forward) -> tuple[int, dict[str, str], bytes]:
        repeated(forward)
        return 502, {}, HTML

    world = behind()
    gateway.on("POST", BATCHES, lost)
    pipeline = world.pipeline(texts(4))
    world.send(pipeline)
    world.finish(pipeline)
    assert len(world.accepted()) == 2
    assert sorted(world.query("select state, paid_twice from batch")) == [
        ("collected", False),
        ("collected", True),
    ]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 407, 422, 451, 499, 302, 307, 511])
@pytest.mark.parametrize("call", ["create", "list"])
def test_what_is_no_answer_of_the_api_is_no_final_refusal(
    gateway: Gateway, behind: Callable[..., World], status: int, call: str
) -> None:
    """A firewall's page, a captive portal, a gateway that gave up: it passes, and nothing is refused."""
    world = behind()
    pipeline = world.pipeline(texts(4))
    world.build(pipeline)
    if call == "create":
        gateway.on("POST", BATCHES, instead(status, HTML, location="http://portal.invalid/"))
        world.submit(pipeline)
    else:
        gateway.on("GET", BATCHES, instead(status, HTML, location="http://portal.invalid/"), times=3)
        with pytest.raises(UnreachableError, match="no answer of the API"):
            world.submit(pipeline)
        assert world.states(pipeline) == ["ready"]
        gateway.forget()
    world.submit(pipeline, unattended=True)
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 4
    assert len(world.accepted()) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_an_error_of_the_api_is_still_final(gateway: Gateway, behind: Callable[..., World], status: int) -> None:
    world = behind()
    body = b'{"type":"error","error":{"type":"permission_error","message":"not allowed"}}'
    gateway.on("POST", BATCHES, instead(status, body))
    pipeline = world.pipeline(texts(4))
    world.build(pipeline)
    with pytest.raises(SubmissionStoppedError, match="not allowed"):
        world.submit(pipeline)
    assert world.states(pipeline) == ["stopped"]


@pytest.mark.parametrize("accepts", [True, False])
def test_a_cached_reply_that_names_a_batch_of_another_file_is_in_doubt(
    gateway: Gateway, behind: Callable[..., World], accepts: bool
) -> None:
    """Neither its receipt nor the ledger says so, and other pipelines go on."""
    world = behind()
    cached: list[bytes] = []

    def keep(forward: Forward) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = forward()
        cached.append(body)
        return status, headers, body

    def replay(forward: Forward) -> tuple[int, dict[str, str], bytes]:
        if accepts:
            forward()
        return 200, {}, cached[0]

    first = world.pipeline(texts(3, "first"), name="first")
    gateway.on("POST", BATCHES, keep)
    world.send(first)
    second = world.pipeline(texts(3, "second"), name="second")
    gateway.on("POST", BATCHES, replay)
    report = world.send(second)
    assert report.submitted == ([world.accepted()[1]["id"]] if accepts else [])
    assert not any(path.read_bytes() == cached[0] for path in world.path("second").rglob("*.batch.json"))
    world.submit(second, unattended=True)
    world.finish(second)
    world.finish(first)
    assert list(world.table(second)["result_type"]) == ["succeeded"] * 3
    assert len(world.accepted()) == 2


def test_a_reply_about_a_batch_that_was_there_before_is_in_doubt(
    gateway: Gateway, behind: Callable[..., World]
) -> None:
    """The proxy replays a reply to someone else."""
    world = behind()
    other = behind(name="other")
    theirs = other.pipeline(texts(3, "theirs"))
    other.send(theirs)
    (batch,) = other.accepted()
    body = (
        f'{{"id":"{batch["id"]}","type":"message_batch","processing_status":"in_progress","request_counts":'
        f'{{"processing":3}},"created_at":"2020-01-01T00:00:00Z"}}'
    )
    gateway.on("POST", BATCHES, instead(200, body.encode()))
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    assert world.query(
        "select outcome from intent where file_id like :id", id=f"{world.files(pipeline)[0].id}"
    ) != [("accepted",)]
    assert not list(world.path(pipeline.name).rglob("*.batch.json"))


def test_an_answer_about_another_batch_changes_nothing(gateway: Gateway, behind: Callable[..., World]) -> None:
    world = behind()
    world.emulator.settings(latency=3600)
    first = world.pipeline(texts(2, "one"), name="one")
    world.send(first)
    second = world.pipeline(texts(3, "two"), name="two")
    world.send(second)
    (one,), (two,) = world.query("select id from batch order by created_at")
    world.emulator.end_batches(two)
    shown = world.root.api.retrieve(two)
    assert shown.ended
    swapped = instead(
        200,
        f'{{"id":"{two}","processing_status":"ended","created_at":"2026-01-01T00:00:00Z","request_counts":'
        '{"succeeded":3}}'.encode(),
    )
    gateway.on("GET", one, swapped)
    gateway.on("GET", BATCHES, instead(500), times=3)
    world.collect(first)
    assert dict(world.query("select id, state from batch"))[one] == "open"


def test_a_404_after_our_own_delete_means_that_it_is_done(gateway: Gateway, behind: Callable[..., World]) -> None:
    world = behind()
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    world.run(pipeline)
    gone = b'{"type":"error","error":{"type":"not_found_error","message":"gone"}}'
    gateway.on("DELETE", world.accepted()[0]["id"], accepted_but(404, gone))
    done = collect_results(world.root, pipeline.name, retention=RetentionConfig(batches_days=0))
    assert done.problems == []
    assert world.query("select distinct state from batch") == [("deleted",)]


def test_a_lost_reply_to_a_delete_is_not_repeated_by_the_sdk(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    match = {"method": "DELETE", "path": f"{BATCHES}/*", "times": 1}
    world.emulator.faults([{"match": match, "action": {"drop": "after_commit"}}])
    world.forget_calls()
    collect_results(world.root, pipeline.name, retention=RetentionConfig(batches_days=0))
    assert sum(count for call, count in world.calls().items() if call.startswith("DELETE")) == 1
    world.query("update batch set next_delete_at = 0")
    done = collect_results(world.root, pipeline.name, retention=RetentionConfig(batches_days=0))
    assert (done.problems, world.query("select state from batch")) == ([], [("deleted",)])


def test_a_plain_refusal_is_refused_although_someone_else_uses_the_workspace(world: World) -> None:
    """Batches that are known or older than the upload put nothing in doubt."""
    first = world.pipeline(texts(3, "first"), name="first")
    world.send(first)
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"status": 400, "body": body}}])
    second = world.pipeline(texts(3, "second"), name="second")
    world.send(second)
    assert world.states(second) == ["refused"]


def test_another_root_with_the_same_rows_in_the_same_workspace_repeats_nothing(
    new_world: Callable[..., World],
) -> None:
    """Staging asks the same before and after: its batches are neither adopted nor called paid twice."""
    staging, production = new_world(name="staging"), new_world(name="production")
    pipeline = staging.pipeline(texts(4))
    staging.send(pipeline)
    production.send(pipeline)
    staging.finish(pipeline)
    production.finish(pipeline)
    for world in (staging, production):
        assert world.query("select count(*), max(paid_twice) from batch") == [(1, False)]


@pytest.mark.parametrize("seconds", [0, 600])
def test_what_others_create_after_a_plain_429_puts_nothing_in_doubt(world: World, seconds: int) -> None:
    """A batch created at the time of the refused POST may be ours, one created minutes later may not."""
    world.emulator.settings(latency=3600)
    submit_as_someone_else(world, 1)
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"status": 429}}])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    assert world.states(pipeline) == ["ready"]
    world.emulator.clock(advance=seconds)
    submit_as_someone_else(world, 3)
    world.query("update request_file set not_before = 0")
    world.submit(pipeline)
    outcomes = world.query("select outcome from intent order by id")
    assert outcomes == ([("not_sent",), ("accepted",)] if seconds else [("adopted",)])


@pytest.mark.parametrize("provisional", [False, True])
def test_a_refused_file_is_sent_as_soon_as_the_batch_that_put_it_in_doubt_is_anothers(
    gateway: Gateway, behind: Callable[..., World], provisional: bool
) -> None:
    """Someone else creates a batch of the same count while ours is refused. The grace period is 15 minutes."""
    world = behind(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.settings(latency=3600)

    def meanwhile(forward: Forward) -> tuple[int, dict[str, str], bytes]:
        submit_as_someone_else(world, 3)
        return 429, {"retry-after": "0"}, LIMITED

    gateway.on("POST", BATCHES, meanwhile)
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    if not provisional:
        world.emulator.settings(latency=0)
    world.submit(pipeline)
    if provisional:
        assert world.query("select provisional from batch") == [(True,)]
        world.emulator.end_batches()
        world.collect(pipeline)
    world.submit(pipeline, unattended=True)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 3
    assert len(world.accepted()) == 2


LIST_FAILS = {"match": {**LIST, "nth": [2, 3, 4]}, "action": {"status": 529}}
"""The list that is read right after the first upload, and its retries."""


def limited(times: int) -> dict[str, object]:
    return {"match": {**CREATE, "times": times}, "action": {"status": 429}}


def refused_unseen(world: World) -> Pipeline:
    """Send a file that the API asks to wait, and then refuses the list as well."""
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    world.emulator.faults([limited(1), LIST_FAILS])
    world.submit(pipeline)
    return pipeline


def test_what_others_create_an_hour_after_a_429_is_no_candidate_although_the_list_was_unavailable(
    new_world: Callable[..., World],
) -> None:
    """An API that is busy refuses the list as well."""
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.settings(latency=3600)
    pipeline = refused_unseen(world)
    assert world.query("select latest_created_at from intent") == [(None,)]
    world.query("update intent set started_at = started_at - 3600, last_byte_at = last_byte_at - 3600")
    world.query("update request_file set not_before = 0")
    theirs = submit_as_someone_else(world, 3)
    (submitted,) = world.submit(pipeline, unattended=True).submitted
    assert submitted != theirs
    assert world.query("select provisional from batch") == [(False,)]


def test_what_others_create_between_two_refusals_puts_nothing_in_doubt(new_world: Callable[..., World]) -> None:
    """It is too late for the first upload, and was there before the second one."""
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.settings(latency=36000)
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    for _ in range(3):
        world.emulator.faults([limited(1)])
        world.submit(pipeline)
        assert world.states(pipeline) == ["ready"]
        world.query("update request_file set not_before = 0")
        world.emulator.clock(advance=600)
        submit_as_someone_else(world, 3)
        world.emulator.clock(advance=600)
    world.submit(pipeline, unattended=True)
    assert world.query("select outcome from intent order by id") == [*[("not_sent",)] * 3, ("accepted",)]


@pytest.mark.parametrize("status", [400, 413])
def test_a_refusal_that_the_list_could_not_confirm_is_confirmed_by_the_next_run(
    new_world: Callable[..., World], status: int
) -> None:
    """Nothing waits for the grace period: the list shows at once that nothing was accepted."""
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    world.emulator.faults([{"match": {**CREATE, "times": 2}, "action": {"status": status}}, LIST_FAILS])
    (waiting,) = world.submit(pipeline).waiting.values()
    assert "The list of batches, which could confirm that, cannot be read now" in waiting
    assert world.states(pipeline) == ["ready"]
    report = world.submit(pipeline, unattended=True)
    assert len(report.refused) == (1 if status == 400 else 0)
    assert len(report.submitted) == (0 if status == 400 else 2)
    assert world.query("select count(*) from intent where outcome = 'unresolved'") == [(0,)]


def test_a_batch_of_the_first_refused_upload_is_found_after_the_second_one(
    gateway: Gateway, behind: Callable[..., World]
) -> None:
    """The list shows it late, and its upload is not the last one."""
    world = behind(BATCH_ASSETS_RECONCILE_GRACE="900")
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    gateway.on("POST", BATCHES, accepted_but(429, LIMITED))
    gateway.on("POST", BATCHES, instead(429, LIMITED))
    world.emulator.faults([{"match": LIST, "action": {"hide_from_list": 3600}}])
    for _ in range(2):
        world.submit(pipeline)
        world.query("update request_file set not_before = 0")
    assert world.query("select outcome from intent") == [("not_sent",)] * 2
    # As it is when others created batches between the two, and minutes passed.
    world.query("update intent set anchor_id = 'msgbatch_a', anchor_created_at = started_at + 400 where id = 2")
    world.emulator.reset_faults()
    world.submit(pipeline)
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 3
    assert len(world.accepted()) == 1
    assert world.query("select id from intent where outcome in ('open', 'unresolved')") == []


@pytest.mark.parametrize(("status", "body"), [(400, REFUSED), (429, LIMITED), (403, REFUSED)])
@pytest.mark.parametrize("requests", [1, 3])
def test_a_file_that_was_refused_unseen_and_canceled_is_still_looked_for(
    gateway: Gateway, behind: Callable[..., World], status: int, body: bytes, requests: int
) -> None:
    """The first try was accepted, and the list cannot be read before the user cancels."""
    world = behind()
    pipeline = world.pipeline(texts(requests))
    world.build(pipeline)
    gateway.on("POST", BATCHES, accepted_but(status, body))
    world.emulator.faults([LIST_FAILS])
    with suppress(SubmissionStoppedError):
        world.submit(pipeline)
    cancel(world.root, pipeline.name)
    assert world.states(pipeline) == ["canceled"]
    with world.root.ledger.read() as tx:
        (unsettled,) = unsettled_files(tx, pipeline.name)
    assert unsettled.watched_until is not None
    world.emulator.reset_faults()
    world.submit(pipeline, unattended=True)
    world.collect(pipeline)
    assert world.query("select state, paid_twice from batch") == [("collected", False)]


def test_a_file_that_was_refused_unseen_is_not_looked_for_after_the_list_was_read(
    new_world: Callable[..., World],
) -> None:
    world = new_world()
    pipeline = refused_unseen(world)
    assert world.query("select watch_until is null from intent") == [(False,)]
    world.query("update request_file set not_before = 0")
    world.submit(pipeline)
    assert world.query("select outcome, watch_until is null from intent order by id") == [
        ("not_sent", True),
        ("accepted", True),
    ]
