"""A pipeline that has lost its files is refused by name, so that nothing is paid for again. Others go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from batch_assets.core.errors import PairingError
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.recovery.move import move, plan_move
from batch_assets.core.remedies import PairRoot
from batch_assets.core.results.run import collect_results

from ..support import World, texts


def folder_is_gone(world: World, pipeline: Pipeline) -> None:
    """A mount of its own is missing, or someone has removed it."""
    shutil.rmtree(world.path(pipeline.name))


def answers_are_gone(world: World, pipeline: Pipeline) -> None:
    """Retention has removed the batches and the request files, so nothing can be downloaded again."""
    retention = RetentionConfig(batches_days=0, request_files_days=0)
    collect_results(world.root, pipeline.name, retention=retention)
    shutil.rmtree(world.path(pipeline.name, "responses"))


@pytest.mark.parametrize("lose", [folder_is_gone, answers_are_gone])
def test_a_pipeline_that_has_lost_its_files_is_refused_until_a_user_accepts_it(
    world: World, lose: Callable[[World, Pipeline], None]
) -> None:
    for number in range(4):  # the newest submissions of the root are those of other pipelines
        world.run(world.pipeline(texts(2, str(number)), name=f"p{number}"))
    pipeline, other = (world.pipeline(texts(2, name[1]), name=name) for name in ("p0", "p3"))
    lose(world, pipeline)
    world.reopened()
    for stage in (world.build, world.submit):
        with pytest.raises(PairingError, match="The pipeline p0 has lost its files") as refused:
            stage(pipeline)
        assert refused.value.remedy == PairRoot()
    assert world.build(other).written == 0
    assert world.submit(other).submitted == []
    assert len(world.accepted()) == 4

    plan = plan_move(world.root.settings)
    assert [warning.partition(":")[0] for warning in plan.warnings] == ["p0"]
    assert not plan.is_done
    move(world.root.settings)
    assert plan_move(world.root.settings).is_done
    world.reopened()
    world.run(world.pipeline(texts(2, "0"), name="p0"))
    assert len(world.accepted()) == 5


def test_a_pipeline_with_lost_files_in_flight_is_refused(world: World) -> None:
    world.emulator.settings(latency=3600)
    for number in range(4):
        world.send(world.pipeline(texts(2, str(number)), name=f"p{number}"))
    shutil.rmtree(world.path("p0"))
    with pytest.raises(PairingError, match="The pipeline p0 has lost its files"):
        world.build(world.pipeline(texts(2, "0"), name="p0"))
