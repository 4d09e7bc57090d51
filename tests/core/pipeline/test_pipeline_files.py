"""Files that templates read from the pipeline's folder: included text, and data for `load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.core.errors import ConfigError
from batch_assets.core.template.template import RowRejectedError, Template

SHOT = {"role": "user", "content": "ä {{ v }}"}
CONTENTS: dict[str, bytes] = {
    "a.json": b'\xef\xbb\xbf{"role": "user", "content": "\xc3\xa4 {{ v }}"}',
    "a.jsonl": b'{"role": "user", "content": "\xc3\xa4 {{ v }}"}\n\n{"role": "user", "content": "x\xe2\x80\xa8"}',
    "a.ndjson": b'{"role": "user", "content": "\xc3\xa4 {{ v }}"}\n',
    "a.yaml": b"role: user\ncontent: \xc3\xa4 {{ v }}\n",
    "sub/a.YML": b'- {role: user, content: "\xc3\xa4 {{ v }}"}\n',
}


def loading(name: str) -> str:
    return "{{ load('NAME') }}".replace("NAME", name)


def template(source: Any, folder: Path, columns: list[str] | None = None) -> Template:
    return Template({"k": source}, folder, "x/defs.yaml", dataset=columns)


def render(source: Any, folder: Path, row: dict[str, Any] | None = None) -> Any:
    return orjson.loads(template(source, folder, list(row or {})).render(row or {}))["k"]


def refused(source: Any, folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        template(source, folder)
    assert (caught.value.source, caught.value.field.startswith("params.k")) == ("x/defs.yaml", True)
    return caught.value.problem


@pytest.mark.parametrize("name", CONTENTS)
def test_load_gives_the_data_in_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(CONTENTS[name])
    shots = [SHOT, {"role": "user", "content": "x\u2028"}] if name == "a.jsonl" else [SHOT]
    assert render([loading(name)], tmp_path) == shots
    assert render(loading(name).replace("}}", "| length }}"), tmp_path) == (
        2 if name in ("a.json", "a.yaml") else len(shots)
    )


def test_a_file_is_read_once_when_the_pipeline_is_loaded(tmp_path: Path) -> None:
    """Even if the expression also needs a row."""
    (tmp_path / "a.json").write_text('{"de": ["eins"], "en": ["one"]}')
    compiled = template(["{{ load('a.json')[language] }}", "{{ load('a.json').de }}"], tmp_path, ["language"])
    (tmp_path / "a.json").unlink()
    assert compiled.render({"language": "en"}) == b'{"k":["one","eins"]}'


def test_loaded_data_becomes_part_of_the_constant_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"content": "b"}, {"content": "c"}]')
    compiled = template(["a", "{{ load('a.json') }}", "{{ none }}", "{{ v }} d"], tmp_path, ["v"])
    before, value, after = compiled._parts
    assert (before, after) == (b'{"k":["a",{"content":"b"},{"content":"c"},', b"]}")
    assert callable(value)


def test_only_true_and_false_are_booleans_in_yaml(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("[yes, no, on, off, y, true, False, 12, ~, '2024']")
    assert render("{{ load('a.yaml') }}", tmp_path) == [
        "yes",
        "no",
        "on",
        "off",
        "y",
        True,
        False,
        12,
        None,
        "2024",
    ]


def test_the_name_of_a_file_may_depend_on_the_row(tmp_path: Path) -> None:
    (tmp_path / "de.json").write_text('["eins"]')
    assert render("{{ load(language ~ '.json') }}", tmp_path, {"language": "de"}) == ["eins"]
    with pytest.raises(RowRejectedError, match=r"params\.k: the file 'fr\.json' is not beside"):
        render("{{ load(language ~ '.json') }}", tmp_path, {"language": "fr"})


def test_a_column_named_load_hides_the_function(tmp_path: Path) -> None:
    assert render("{{ load }} {{ load }}", tmp_path, {"load": 5}) == "5 5"
    assert render("{{ load }}", tmp_path, {"load": 5}) == 5
    compiled = template("{{ load }}", tmp_path, ["other"])
    with pytest.raises(RowRejectedError, match="function"):
        compiled.render({})


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("no.yaml", None, "the file 'no.yaml' is not beside the pipeline file"),
        ("a.txt", b"", "its name must end in .json, .jsonl, .ndjson, .yaml, .yml"),
        ("a.json", b'{"a": ', "a.json cannot be read: "),
        ("a.jsonl", b'{"a": 1}\n\n{"a"\n', "a.jsonl cannot be read: line 3 is not JSON: "),
        ("a.yaml", b"a: 1\n  b: 2\n", "line 2"),
        ("a.yaml", b"a: !!python/name:os.system x", "could not determine a constructor"),
        ("a.yaml", b"a: \xff", "a.yaml cannot be read: "),
        ("a.json", b'[{"content": null}]', "the value is null"),
        ("a.yaml", b"- {1: b}", "must be str"),
        ("a.json", b"[]", "no entry of the list is left"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_reported_at_load(
    tmp_path: Path, name: str, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert problem in refused([loading(name)], tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline's folder with symbolic links out of it."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.json").write_text('"secret"')
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    (folder / "out").symlink_to(tmp_path)
    (folder / "a.json").write_text('"a"')
    (folder / "inner.json").symlink_to("a.json")
    return folder


@pytest.mark.parametrize("source", ["{{ load('%s') }}", "x {%% include '%s' %%}", "{%% import '%s' as m %%}x"])
@pytest.mark.parametrize(
    "name",
    ["../secret.json", "sub/../../secret.json", "/etc/hostname.json", "link.json", "out/secret.json", "sub",
     "..\\\\secret.json", "~/secret.json"],
)  # fmt: skip
def test_files_outside_the_folder_cannot_be_read(folder: Path, name: str, source: str) -> None:
    (folder / "sub.json").mkdir()
    assert "is not beside the pipeline file" in refused(source % (name if name != "sub" else "sub.json"), folder)


def test_files_in_subfolders_and_links_within_the_folder_are_read(folder: Path) -> None:
    (folder / "sub" / "b.json").write_text('"b"')
    assert render("{{ load('sub/b.json') ~ load('inner.json') ~ load('sub/../a.json') }}", folder) == "baa"
    assert render("x{% include 'sub/b.json' %}", folder) == 'x"b"'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a\n{{ v | nofilter }}", "No filter named 'nofilter'. (inner.md, line 2)"),
        (b"a\n{{ v is notest }}", "No test named 'notest'. (inner.md, line 2)"),
        (b"a\n\n{% if v %}", "(inner.md, line 3)"),
        (b"a \xff", "inner.md cannot be read: it is not UTF-8 at byte 2"),
        (b"{% include 'deeper.md' %}", "the file 'deeper.md' is not beside the pipeline file"),
    ],
)
@pytest.mark.parametrize("source", ["{% include 'inner.md' %}", "{% include ['other.md', 'inner.md'] %}{{ v }}"])
def test_a_mistake_in_an_included_file_is_reported_at_load(
    tmp_path: Path, content: bytes, problem: str, source: str
) -> None:
    (tmp_path / "inner.md").write_bytes(content)
    assert problem in refused(source, tmp_path)


def test_a_missing_file_is_allowed_with_ignore_missing_or_alternatives(tmp_path: Path) -> None:
    assert render("a{% include 'no.md' ignore missing %}{{ v }}", tmp_path, {"v": 1}) == "a1"
    (tmp_path / "de.md").write_text("[{{ v }}]")
    assert render("{% include ['no.md', 'de.md'] %}", tmp_path, {"v": 1}) == "[1]"
