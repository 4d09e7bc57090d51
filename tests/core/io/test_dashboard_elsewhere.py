"""What the dashboard reads of a root on S3 whose ledger is on PostgreSQL, with every kind of attempt of a row."""

from __future__ import annotations

from collections.abc import Callable

from batch_assets.cli.remedies import error_as_text
from batch_assets.cli.status_errors import errors_of
from batch_assets.cli.what_next import waits_for
from batch_assets.core.batches.caps import record_caps
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.spend.build import SpendReader
from batch_assets.core.spend.spend_table import SpendTotal
from batch_assets.dashboard.live import Live
from batch_assets.dashboard.state import Words
from batch_assets.dashboard.tables import Failures

from ..batches.test_rescue import rescue, rescued
from ..imports.test_import import imported, results_of
from ..postgres import PostgresServer
from ..support import CREATE, World, params, texts
from .object_stores import S3Server

SCHEMA = {
    "type": "object",
    "properties": {"moods": {"type": "array", "items": {"enum": ["glad", "sad"]}}, "is_new": {"type": "boolean"}},
    "required": ["moods", "is_new"],
    "additionalProperties": False,
}


def history(live: Live, pipeline: Pipeline, key: str = "row-0") -> list[tuple[str, str, bool]]:
    """The attempts of a row in order: kind, what became of it, and whether it belongs to a batch."""
    (version,) = live.versions(pipeline.name, "", key)
    return [
        (each.kind, each.values["stop_reason"] or each.values["result_type"], each.batch is not None)
        for each in version.answers
    ]


def follow_and_refresh(world: World) -> Pipeline:
    cut_off, once = params() | {"max_tokens": 20}, {"truncated": {"times": 1}}
    chained = world.pipeline(texts(2), name="chained", params=cut_off, retry=once)
    world.send(chained)
    world.finish(chained)
    world.build(chained, refresh=True)
    world.submit(chained)
    world.finish(chained)
    return chained


def retry_and_classify(world: World) -> Pipeline:
    world.emulator.faults([{"match": CREATE | {"nth": 1}, "action": {"error_mix": {"overloaded_error": 1.0}}}])
    retried = world.pipeline(texts(2), name="retried", output_schema=SCHEMA)
    world.send(retried)
    world.finish(retried)
    world.emulator.reset_faults()
    return retried


def test_it_reads_everything_there(
    s3: S3Server, postgres_server: PostgresServer, new_world: Callable[..., World]
) -> None:
    world = new_world(ledger=postgres_server.new_database(), BATCH_ASSETS_ROOT=f"{s3.new_bucket()}/root")
    chained, retried = follow_and_refresh(world), retry_and_classify(world)
    brought = world.pipeline(texts(2), name="brought", output_schema=SCHEMA)
    file = results_of(world, world.accepted()[-1]["id"])
    assert imported(world, brought, file).imported
    world.send(brought)
    world.finish(brought)
    late = rescued(world, 2, name="late", params=params())
    record_caps(world.root, [late])
    rescue(world, late)
    world.emulator.end_batches()
    world.collect(late)

    live = Live(world.root.settings, Words(waits_for, errors_of, error_as_text, list))
    look = live.look()
    assert look.state is not None and {view.name: view.total.rows for view in look.state.pipelines} == {
        pipeline.name: 2 for pipeline in (chained, retried, brought, late)
    }
    spend = live.spend(look)
    assert spend is not None
    assert SpendTotal.of(spend.rows) == SpendTotal.of(SpendReader(world.root).read().rows)
    assert {live.failures(each) for each in look.state.pipelines} == {Failures()}
    (view,) = [view for view in look.state.pipelines if view.name == "retried"]
    shown = live.distributions(view)
    assert shown.keys() == {"moods", "is_new"} and shown["is_new"].rows == 2 and shown["moods"].is_list
    assert [row.key for row in live.search("chained", "row 1")[0]] == ["row-1"]

    cut, whole = ("max_tokens", True), ("end_turn", True)
    assert history(live, chained) == [
        ("request", *cut),
        ("follow-up 1", *whole),
        ("refresh", *cut),
        ("refresh follow-up 1", *whole),
    ]
    assert history(live, retried) == [("request", "errored", True), ("retry", *whole)]
    assert history(live, brought) == [("imported", "end_turn", False)]
    assert history(live, late) == [("live call", "end_turn", False), ("request", *whole)]
    (version,) = live.versions("chained", "", "row-0")
    assert version.params is not None and version.params["max_tokens"] == 20, "as the row asked, not a follow-up"
    assert version.newest_answer == version.answers[-1]
