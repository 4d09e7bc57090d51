"""Input from outside is checked before it is trusted."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from batch_assets.core.api import bodies
from batch_assets.core.api.errors import UnknownOutcomeError
from batch_assets.core.errors import BatchAssetsError, ConfigError, DamagedFileError
from batch_assets.core.io.json_files import read_document
from batch_assets.core.io.storage import Storage
from batch_assets.core.template.template import RowRejectedError, Template

from ..support import CREATE, LIST, World, make_pipeline, texts


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/etc/x", "a\0b", "a\n", "", "x" * 101, "a%2fb", "ä"])
def test_the_name_of_a_pipeline_is_a_plain_word(world: World, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        make_pipeline(world.folder, "rows.jsonl", name=name)


@pytest.mark.parametrize("key", ["a\0b", "~", "%2e%2e", "a\nb", "*?[x]"])
def test_a_partition_key_of_any_characters_is_one_folder(world: World, key: str) -> None:
    pipeline = world.pipeline(texts(1))
    world.build(pipeline, key)
    (folder,) = world.path("asked", "requests").iterdir()
    assert folder.is_dir()
    assert list(folder.glob("*/manifest.json"))


def test_a_partition_key_too_long_for_the_file_system_is_an_error_that_says_so(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    with pytest.raises((BatchAssetsError, OSError), match="File name too long"):
        world.build(pipeline, "x" * 300)
    assert world.query("select count(*) from submission") == [(0,)]


def test_an_answer_that_is_read_into_memory_has_a_size_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "ANSWER_BYTES", 1000)
    padding = {"data": [], "has_more": False, "padding": "x" * 2000}
    world.emulator.faults([{"match": LIST, "action": {"status": 200, "body": padding}}])
    with pytest.raises(UnknownOutcomeError, match=r"list: .*the answer is larger than"):
        world.root.api.page()


def test_a_create_whose_answer_is_too_large_is_in_doubt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.reopened(BATCH_ASSETS_RECONCILE_GRACE="900")
    monkeypatch.setattr(bodies, "ANSWER_BYTES", 1000)
    world.emulator.faults(
        [{"match": {**CREATE, "times": 1}, "action": {"status": 200, "body": {"x": "x" * 2000}}}]
    )
    pipeline = world.pipeline(texts(1))
    world.send(pipeline)
    assert world.states(pipeline) == ["unresolved"]


def test_a_result_line_that_never_ends_does_not_fill_the_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_assets.core.results.download._LINE_BYTES", 20)
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    endless = {"match": {"path": "*/results", "times": 1}, "action": {"status": 200, "body": "x" * 5000}}
    world.emulator.faults([endless])
    done = world.collect(pipeline)
    assert any("a line is longer than" in problem for problem in done.problems)
    world.query("update batch set next_download_at = 0")
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 2


class Numbered(BaseModel):
    model_config = ConfigDict(strict=True)

    n: int


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff", "not JSON"),
        (b"3", "not a JSON object"),
        (b"{}", "'n' is missing"),
        (b'{"n": "1"}', "'n' is str"),
        (b'{"n": true}', "'n' is bool"),
        (b" " * ((64 << 20) + 1), "more than 64 MiB"),
    ],
)
def test_a_damaged_file_under_the_root_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    storage = Storage(str(tmp_path))
    storage.write_bytes(content, "a.json")
    with pytest.raises(DamagedFileError, match=f"{tmp_path}/a.json is damaged: .*{problem}"):
        read_document(storage, ("a.json",), Numbered)
    storage.write_bytes(b'{"n": 1, "more": 2}', "a.json")
    assert read_document(storage, ("a.json",), Numbered).n == 1


@pytest.mark.parametrize("prefix", ["", "text "])
@pytest.mark.parametrize(
    "source",
    [
        "{{ range(10 ** 12) | list }}",
        "{{ v * 10 ** 10 }}",
        "{{ 9 ** (9 ** (9 ** (5 + (v | length)))) }}",
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}{{ v }}",
        "{% for a in v * 90000 %}{% for b in v * 90000 %}{% endfor %}{% endfor %}{{ v }}",
        "{% set n = namespace(x=v) %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x=v) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
        "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n else v }}{% endmacro %}{{ f(60) }}",
        "{{ v.center(10 ** 10) }}",
        "{{ v | center(10 ** 10) }}",
        "{{ v | indent(10 ** 10) }}",
        "{{ v | batch(10 ** 9, 'x') | list }}",
        "{{ '%10000000000d' % (v | length) }}",
        "{{ '%*d' % (10 ** 10, v | length) }}",
        "{{ '%10000000000d' | format(v | length) }}",
        "{{ '{:>10000000000}'.format(v) }}",
        "{{ '{:>{w}}'.format(v, w=10 ** 10) }}",
        "{{ v.replace('t', 't' * 9999999).replace('t', 't' * 9999999) }}",
    ],
)
def test_no_template_blocks_a_run_or_uses_up_its_memory(source: str, prefix: str) -> None:
    with pytest.raises((RowRejectedError, ConfigError)):
        Template({"k": prefix + source}, Path("/nowhere"), "x").render({"v": "text"})


def test_the_limits_of_templates_apply_to_each_row() -> None:
    template = Template({"k": "a{% for i in range(60000) %}{{ v }}{% endfor %}"}, Path("/nowhere"), "x")
    for _ in range(20):
        assert template.render({"v": "x"}) == b'{"k":"a' + b"x" * 60000 + b'"}'


def test_ordinary_templates_stay_within_the_limits() -> None:
    source = (
        "{% for x in l %}{{ loop.index }}/{{ loop.length }}:{{ x ~ '-' ~ loop.last }} {% endfor %}{{ '%05d' % 3 }}"
    )
    template = Template({"k": source, "n": "{{ 2 ** 3 * 4 % 5 + 1 }}"}, Path("/nowhere"), "x")
    assert template.render({"l": ["a", "b"]}) == b'{"k":"1/2:a-False 2/2:b-True 00003","n":3}'
