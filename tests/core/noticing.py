"""How tests make and send notices."""

from __future__ import annotations

from batch_assets.core.ledger import joins, submissions
from batch_assets.core.notify.notices import Noticed, send_notices
from batch_assets.core.pipeline.pipeline import Pipeline

from .support import World

SECRET = "whsec-RECOGNIZE-ME-4711"
PATH = "/hooks/T0P-S3CRET-PATH"
WEBHOOK = {"webhook": {"url_env": "HOOK_URL", "secret_env": "HOOK_SECRET"}}
EMAIL = {
    "email": {"to": ["ada@example.com", "bob@example.com"], "sender": "us@example.com", "url_env": "SMTP_URL"}
}


def noticed(*pipelines: Pipeline) -> dict[str, Noticed]:
    return {pipeline.name: Noticed(pipeline, [pipeline.name, "results"]) for pipeline in pipelines}


def tick(world: World, *pipelines: Pipeline) -> list[str]:
    """Do what the sensor does, with the announcements as they are."""
    return send_notices(world.root, noticed(*pipelines))


def complete(world: World, pipeline: Pipeline, partition: str = "") -> None:
    """Run all stages and record the event in Dagster's log."""
    world.send(pipeline, partition)
    world.finish(pipeline, partition)
    announce(world, pipeline, partition)


def announce(world: World, pipeline: Pipeline, partition: str = "") -> None:
    with world.root.ledger.write() as tx:
        newest = submissions.newest(tx, pipeline.name, partition)
        assert newest is not None
        joins.announced(tx, newest.id)


def now_due(world: World) -> None:
    """Make waiting notices due, as if the pause were over."""
    world.query("update notice set next_try_at = 0 where state = 'waiting'")


def states(world: World) -> list[str]:
    return [row.state for row in world.query("select state from notice order by created_at, id")]
