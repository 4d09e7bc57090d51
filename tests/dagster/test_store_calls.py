"""How many calls to an object store a partition waits for in Dagster, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import fsspec
import pytest

from batch_assets import build_message_batch_checks
from batch_assets.core.batches.poll import poll
from batch_assets.core.open_root import open_root
from batch_assets.emulator import Emulator
from tests.core.io.object_stores import S3Server

# For a partition of 1,000 rows, together 40 in all stages. docs/object-stores.md says what was counted.
MOST_OF_THE_FIRST_RUN, MOST_OF_THE_SECOND_RUN = 24, 16


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_partition_waits_for_few_calls_one_after_the_other(
    s3: S3Server,
    make_assets: Callable[..., list[dg.AssetsDefinition]],
    emulator: Emulator,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a deployment: one run builds, sends and writes the table of pending rows, and another one collects."""
    url = s3.new_bucket()
    monkeypatch.setenv("BATCH_ASSETS_ROOT", f"{url}/root")
    monkeypatch.setenv("BATCH_ASSETS_LEDGER", f"sqlite:///{tmp_path}/ledger.db")
    files = fsspec.filesystem("s3", **s3.options)
    for day in ("mon", "tue"):
        lines = "".join(f"{day}-{number},the text of row {number} of {day}\n" for number in range(1000))
        files.pipe_file(f"{url}/{day}/rows.csv", b"id,text\n" + lines.encode())
    dataset = {"path": f"{url}/{{partition}}/rows.csv", "key": "id"}
    assets = make_assets(dataset=dataset, partitions={"static": ["mon", "tue"]})
    results = [asset for asset in assets if asset.key.path[-1] == "results"]

    def run(day: str, *selection: dg.AssetsDefinition) -> int:
        s3.forget()
        done = dg.materialize(
            [*assets, *build_message_batch_checks(assets)],
            selection=selection or None,
            partition_key=day,
            instance=instance,
        )
        assert done.success
        return s3.one_after_the_other()

    def end_batches() -> None:
        emulator.end_batches()
        with open_root() as root:
            poll(root, now=True)

    def calls_of(name: str) -> list[str]:
        return [call.method for call in s3.calls if call.path.endswith(name)]

    run("mon")
    end_batches()
    run("mon", *results)
    s3.delay = 0.05
    assert run("tue") <= MOST_OF_THE_FIRST_RUN, s3.calls
    assert calls_of("/tue/rows.csv") == ["HEAD", "GET"], "the dataset is looked up once and read once"
    assert calls_of("/root/root.json") == ["GET", "GET"], "to open the root, and before something is sent"
    s3.delay = 0.0
    end_batches()
    s3.delay = 0.05
    assert run("tue", *results) <= MOST_OF_THE_SECOND_RUN, s3.calls
    assert calls_of("/root/root.json") == ["GET"], "the checks use the same root"
