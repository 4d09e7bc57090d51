"""What a run would cost, before it is sent: a range, and what it is based on."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, BinaryIO

import numpy as np
import pytest

from batch_assets.core.io.storage import Storage
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.prices.prices import default_prices
from batch_assets.core.prices.projection import project
from batch_assets.core.prices.range import Range
from batch_assets.core.requests.caching import saved_by_caching
from batch_assets.core.requests.estimate import Estimate, InputBasis, OutputBasis, RecordedEstimate
from batch_assets.core.requests.estimating import estimate_of
from batch_assets.core.requests.own_answers import OwnAnswers, own_answers
from batch_assets.core.requests.plan import Plan, plan_requests
from batch_assets.core.requests.report import AskAgain
from batch_assets.core.requests.request_sample import MOST_SAMPLED, RequestSample
from batch_assets.core.store.digests import pack
from batch_assets.core.store.request_files import StoredRequestFile

from ..support import MODEL, World, params, texts

ALL = AskAgain(refresh=True)


def plan(world: World, pipeline: Pipeline, again: AskAgain = ALL) -> Plan:
    """Plan a run, and check that nothing was written, registered or sent."""
    with world.root.ledger.read():  # opening the root writes its ids
        pass
    before = sorted(world.path().rglob("*.*")), world.query("select id from submission")
    sent = len(world.accepted())
    result = plan_requests(world.root, pipeline, "", again)
    after = sorted(world.path().rglob("*.*")), world.query("select id from submission")
    assert [path for path in after[0] if "ledger" not in path.name] == [
        path for path in before[0] if "ledger" not in path.name
    ]
    assert after[1] == before[1]
    assert len(world.accepted()) == sent
    return result


def estimate(world: World, pipeline: Pipeline, again: AskAgain = ALL) -> Estimate:
    """The estimate of a plan."""
    planned = plan(world, pipeline, again).estimate
    assert planned is not None
    return planned


def ends(range_: Range | None) -> tuple[float, float]:
    """The ends of a range in USD."""
    assert range_ is not None
    return range_.low / PICODOLLARS, range_.high / PICODOLLARS


def test_own_answers_give_a_narrow_range(world: World) -> None:
    pipeline = world.pipeline(texts(9), params=params(model="claude-opus-5-5"))
    table = world.run(pipeline)
    known = estimate(world, pipeline)
    low, high = ends(known.batch)
    assert low <= table["cost_usd"].sum() <= high <= 1.5 * low
    assert (known.requests, known.output_basis) == (9, OutputBasis.ANSWERS)
    assert known.basis == "from 9 answers to this prompt"
    assert ends(known.live) == pytest.approx((2 * low, 2 * high))
    assert f"9 requests, ${low:.4f} to ${high:.4f}, about $" in known.as_text
    half_low, half_high = ends(estimate(world, pipeline, AskAgain(refresh=True, limit=3)).batch)
    assert half_low <= table["cost_usd"][:3].sum() <= half_high < high
    nothing = plan(world, pipeline, AskAgain())
    assert (nothing.requests, nothing.estimate, nothing.cost_as_text) == (0, None, "nothing would be sent")


def test_a_limit_is_the_pilot_of_the_rest(world: World) -> None:
    """The build says what the rest would cost; answers to the first rows narrow it."""
    pipeline = world.pipeline(texts(60))
    first = world.build(pipeline, limit=20)
    assert first.estimate is not None and first.rest is not None
    assert (first.estimate.requests, first.rest.requests) == (20, 40)
    assert first.rest.output_basis is OutputBasis.MAX_TOKENS
    world.submit(pipeline)
    world.collect(pipeline)
    rest = world.build(pipeline)
    assert rest.estimate is not None and rest.estimate.batch is not None and rest.rest is None
    assert (rest.estimate.requests, rest.estimate.basis) == (40, "from 20 answers to this prompt")
    paid = sum(world.table(pipeline)["cost_usd"].dropna())
    world.submit(pipeline)
    world.finish(pipeline)
    low, high = ends(rest.estimate.batch)
    assert low <= world.table(pipeline)["cost_usd"].sum() - paid <= high <= 1.5 * low


def test_other_partitions_answers_to_the_same_prompt_count(world: World) -> None:
    """No row of the new partition was ever answered."""
    for key in ("de", "en"):
        (world.folder / f"{key}.csv").write_text("id,text\n" + "".join(f"{n},{key} {n}\n" for n in range(8)))
    pipeline = world.pipeline(
        dataset={"path": "{partition}.csv", "key": "id"}, partitions={"static": ["de", "en"]}
    )
    world.send(pipeline, "de")
    world.finish(pipeline, "de")
    built = world.build(pipeline, "en").estimate
    assert built is not None
    assert built.basis == "from 8 answers to this prompt"


def test_an_edited_prompt_is_a_range_up_to_max_tokens(world: World) -> None:
    """Only the tokens of prompts are known from earlier answers. A rebuilt ledger knows no prompts."""
    world.run(world.pipeline(texts(8)))
    edited = estimate(world, world.pipeline(params=params("Please: {{ text }}")))
    assert (edited.input_basis, edited.output_basis) == (InputBasis.COUNTED, OutputBasis.MAX_TOKENS)
    most = default_prices().cost(MODEL, {"input_tokens": 0, "output_tokens": 800})
    assert edited.batch is not None and most is not None
    assert edited.batch.expected is None
    assert edited.batch.high > most.batch > edited.batch.low
    built = world.build(world.pipeline(params=params("Please: {{ text }}"))).estimate
    assert built is not None
    assert built.input_basis is InputBasis.ANSWERS, "a build asks nothing of the API"
    assert built.basis.startswith("prompts by the tokens of 8 earlier prompts, answers of 0 to max_tokens tokens")


def test_answers_of_rows_that_want_the_same_requests_count_without_a_record(world: World) -> None:
    """An earlier version, or a rebuilt ledger, has not recorded which prompt was asked."""
    pipeline = world.pipeline(texts(8))
    world.run(pipeline)
    world.query("update submission set estimate = null")
    assert estimate(world, pipeline).output_basis is OutputBasis.ANSWERS


def test_without_answers_the_api_counts_and_without_a_key_characters_do(world: World) -> None:
    pipeline = world.pipeline(texts(30))
    counted = estimate(world, pipeline, AskAgain())
    assert counted.input_basis is InputBasis.COUNTED
    assert world.calls()["POST /v1/messages/count_tokens"] == 30
    without_key = world.build(pipeline).estimate
    assert without_key is not None
    assert without_key.input_basis is InputBasis.CHARACTERS
    assert "prompts by their characters, answers of 0 to max_tokens tokens" in without_key.as_text
    paid = world.run(pipeline)["cost_usd"].sum()
    for one in (counted, without_key):
        low, high = ends(one.batch)
        assert low < paid < high


def test_an_api_that_cannot_be_reached_does_not_stop_a_plan(world: World) -> None:
    match = {"method": "POST", "path": "/v1/messages/count_tokens"}
    world.emulator.faults([{"match": match, "action": {"status": 403}}])
    assert estimate(world, world.pipeline(texts(3)), AskAgain()).input_basis is InputBasis.CHARACTERS


def test_an_unknown_price_is_reported_and_not_counted_as_0(world: World) -> None:
    pipeline = world.pipeline(texts(2), params=params(model="claude-new-9"), allow_unknown_params=True)
    unknown = estimate(world, pipeline, AskAgain())
    assert (unknown.batch, unknown.unpriced, unknown.unpriced_models) == (None, 2, ("claude-new-9",))
    assert (
        unknown.as_text == "2 requests, cost unknown; without 2 requests that have no price (models: claude-new-9)"
    )
    rows = {"known": MODEL, "unknown": "claude-new-9"}
    some = estimate(world, world.pipeline(rows, params=params(model="{{ text }}")), AskAgain())
    assert (some.unpriced, some.is_known) == (1, False)
    assert some.batch is not None and some.batch.high > 0


def test_searches_are_in_the_upper_end(world: World) -> None:
    """One cent each, in batches too."""
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    pipeline = world.pipeline(texts(2), params=params(tools=[search]))
    searching = estimate(world, pipeline, AskAgain())
    low, high = ends(searching.batch)
    assert high - 0.06 == pytest.approx(0, abs=0.001)
    assert low < 0.001
    assert "without the input that web searches" in searching.as_text


def test_a_shared_prefix_is_priced_as_if_it_were_cached(world: World) -> None:
    system = "Sort the texts by their mood. " * 200
    cached = estimate(world, world.pipeline(texts(20), params=params(system=system)), AskAgain()).cached
    assert cached is not None
    plain = estimate(world, world.pipeline(texts(20), params=params(system=system)), AskAgain()).batch
    assert ends(cached) < ends(plain)
    assert estimate(world, world.pipeline(params=params(system="Short.")), AskAgain()).cached is None


def test_caching_pays_from_the_third_request_on() -> None:
    """A write costs 2 and a read 0.1 of the input price."""
    prices = default_prices()
    saved = [saved_by_caching(prices, "claude-opus-4-8", requests, 2000) for requests in (1, 2, 3, 10)]
    plain = prices.cost("claude-opus-4-8", {"input_tokens": 2000})
    assert plain is not None
    assert [round(each / plain.batch, 3) for each in saved if each is not None] == [-1.0, -0.1, 0.8, 7.1]
    assert saved_by_caching(prices, "claude-opus-4-8", 10, 1023) is None


def test_the_estimate_is_recorded_with_the_submission(world: World) -> None:
    built = world.build(world.pipeline(texts(2))).estimate
    ((recorded,),) = world.query("select estimate from submission")
    known = RecordedEstimate.of(recorded)
    assert built is not None and known is not None
    assert (known.batch, known.is_known) == (built.batch, True)
    assert known.prompt == world.pipeline().prompt_digest


def test_a_plan_counts_the_files_that_a_build_writes(world: World) -> None:
    pipeline = world.pipeline(texts(2500), batching={"max_requests": 1000, "max_mb": 0.05})
    planned = plan(world, pipeline, AskAgain())
    built = world.build(pipeline)
    assert planned.batches == len(built.files) > 5
    assert planned.report.bytes == built.bytes
    assert (planned.report.rows, planned.requests) == (2500, 2500)


def test_the_sample_is_small_and_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    digests = [rng.bytes(16) for _ in range(5000)]
    bodies = [b"%d" % number for number in range(5000)]
    samples = []
    for step in (5000, 7):
        sample = RequestSample()
        for start in range(0, 5000, step):
            sample.add(pack(digests[start : start + step]), bodies[start : start + step])
        samples.append(sample.params())
        assert (sample.requests, sample.bytes) == (5000, sum(map(len, bodies)))
    assert samples[0] == samples[1]
    assert len(samples[0]) == MOST_SAMPLED
    assert 2000 < np.mean([int(body) for body in samples[0]]) < 3000


def test_few_large_requests_are_sampled() -> None:
    sample, rng = RequestSample(), np.random.default_rng(0)
    for _ in range(40):
        sample.add(pack([rng.bytes(16)]), [b"x" * (1 << 20)])
    assert 4 <= len(sample.params()) <= 8


def test_a_large_file_is_looked_at_in_some_places(world: World) -> None:
    """The answers that are read belong to the requests that are read."""
    pipeline = world.pipeline(texts(6000))
    table = world.run(pipeline)
    known = own_answers(world.root, pipeline)
    assert 200 < len(known) < 2000
    assert known.is_own.all()
    assert known.costs.mean() / PICODOLLARS == pytest.approx(table["cost_usd"].mean(), rel=0.05)
    (file,) = world.files(world.pipeline())
    lines = StoredRequestFile.of(world.root.storage, file).some_lines([0.0, 0.5, 1.0], 900, file.requests)
    every = list(StoredRequestFile.of(world.root.storage, file).lines())
    assert 800 < len(lines) < 1000 < len(every)
    assert {line in every for line in lines} == {True}
    assert lines[0] == every[0] and lines[-1] == every[-1]


@pytest.mark.parametrize(("rows", "size"), [(60, 18_000), (25, 700_000)])
def test_answers_to_long_prompts_are_found_and_few_bytes_read(
    world: World, monkeypatch: pytest.MonkeyPatch, rows: int, size: int
) -> None:
    """Also if no line of the request files is read: their answers are known. None of them needs a pilot."""
    long = params(system="long " * (size // 5))
    world.run(world.pipeline(texts(rows), params=long))
    pipeline = world.pipeline(texts(rows + 9), params=long, pilot=rows)
    opened, read = Storage.open, CountedReads
    monkeypatch.setattr(Storage, "open", lambda self, *parts: CountedReads(parts[-1], opened(self, *parts)))
    read.bytes.clear(), read.calls.clear()
    known = own_answers(world.root, pipeline)
    assert (len(known), known.is_own.all()) == (rows, True)
    assert known.sizes.mean() == pytest.approx(size, rel=0.02)
    (file,) = world.files(pipeline)
    assert 0 < read.bytes[file.name] <= min(8 << 20, file.bytes)
    assert read.calls[file.name] <= 8
    built = world.build(pipeline)
    assert built.waits_for_pilot is None
    assert built.estimate is not None and built.estimate.basis == f"from {rows} answers to this prompt"


class CountedReads:
    """A file whose reads are counted by its name."""

    bytes, calls = Counter[str](), Counter[str]()

    def __init__(self, name: str, file: BinaryIO) -> None:
        self._name, self._file = name, file

    def read(self, *size: int) -> bytes:
        content = self._file.read(*size)
        self.bytes[self._name] += len(content)
        self.calls[self._name] += 1
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> CountedReads:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def test_a_projection_follows_the_size_of_the_requests() -> None:
    sizes = np.linspace(100, 1000, 30)
    known = project(5 * sizes + 7, sizes, 100, 100 * 2000)
    assert known is not None and known.expected == pytest.approx(100 * 10_007)
    assert known.low == pytest.approx(0.96 * known.expected)
    assert project(sizes[:2], sizes[:2], 100, 100) is None


def test_ranges_add_up() -> None:
    assert Range(1, 2, 3) + Range(10, 20, 30) == Range(11, 22, 33)
    assert (Range(1, 2, 3) + Range(10, None, 30)).expected is None
    assert Range(1, 2, 30).less(2) == Range(0, 0, 28)


@pytest.mark.parametrize(
    "made",
    [
        {"max_tokens": 10**18},
        {"max_tokens": -1, "tools": [3, None, {"type": "web_search_1", "max_uses": 10**9}]},
        {"tools": [{"type": "web_search_1", "max_uses": -1}]},
        {"messages": "none", "system": {"no": "text"}, "output_config": 4, "inference_geo": {}},
        {"messages": [4, {"role": "user", "content": [{"type": "image", "source": 4}, 5]}]},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"model": ["no model"]},
    ],
)
def test_what_the_pipelines_own_code_makes_never_fails_an_estimate(made: dict[str, object]) -> None:
    """The API refuses such a request when it is sent, and says why."""
    sample = RequestSample()
    sample.add(pack([b"a" * 16]), [json.dumps(params("text") | made).encode()])
    none = OwnAnswers.joined([])
    known = estimate_of(sample, none, default_prices(), lambda digests: np.zeros(len(digests), bool))
    assert known is not None and known.requests == 1
