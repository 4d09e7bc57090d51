"""Templates are sandboxed, and can read only files in the pipeline's and the dataset's folder."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.core.errors import ConfigError
from batch_assets.core.template.template import RowRejectedError, Template
from tests.media import png

from ..support import World, params

_ESCAPES = [
    "{{ v.__class__ }}",
    "{{ v.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ v | attr('__class__') }}",
    "{{ '{0.__class__}'.format(v) }}",
    "{{ '{a.__class__.__mro__}'.format_map({'a': v}) }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ l.append(1) }}",
]


@pytest.mark.parametrize("prefix", ["", "text "])
@pytest.mark.parametrize("source", _ESCAPES)
def test_no_template_can_reach_the_interpreter(source: str, prefix: str) -> None:
    """Whole expressions and longer strings are refused, at load or for the row."""
    with pytest.raises((RowRejectedError, ConfigError)):
        Template({"k": prefix + source}, Path("/nowhere"), "x").render({"v": "text", "l": []})


def test_a_template_cannot_change_the_row() -> None:
    row: dict[str, Any] = {"l": [1]}
    with pytest.raises(RowRejectedError):
        Template({"k": "{{ l.append(2) }}"}, Path("/nowhere"), "x").render(row)
    assert row == {"l": [1]}


@pytest.mark.parametrize("name", ["../secret.md", "/etc/hostname", "sub/../../secret.md", "..\\secret.md"])
def test_an_include_outside_the_folder_is_not_found(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.md").write_text("secret")
    source = "{% include " + repr(name) + " %}"
    with pytest.raises(ConfigError, match="is not beside the pipeline file"):
        Template({"system": source}, folder, "x")
    with pytest.raises(RowRejectedError, match="is not beside the pipeline file"):
        Template({"system": "{% include v %}"}, folder, "x").render({"v": name})


@pytest.fixture
def photos(world: World) -> World:
    """A dataset of file names, with a secret file outside its folder."""
    data = world.folder / "data"
    (data / "photos").mkdir(parents=True)
    (data / "photos" / "a.bin").write_bytes(png())
    (data / "logo.bin").write_bytes(b"logo")
    (world.folder / "secret.bin").write_bytes(b"secret")
    (data / "link.bin").symlink_to(world.folder / "secret.bin")
    names = {
        "good": "photos/a.bin",
        "up": "../secret.bin",
        "around": "photos/../../secret.bin",
        "absolute": str(world.folder / "secret.bin"),
        "link": "link.bin",
        "none": "photos/b.bin",
        "folder": "photos",
        "url": "file:///etc/hostname",
        "null": None,
    }
    lines = [orjson.dumps({"id": key, "photo": name}) for key, name in names.items()]
    (data / "rows.jsonl").write_bytes(b"\n".join(lines))
    return world


def test_files_are_read_only_from_the_datasets_folder(photos: World) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "{{ photo | file_base64 }}"}
    image = {"type": "image", "source": source}
    body = params([image, {"type": "text", "text": "logo: {{ 'logo.bin' | file_base64 }}"}])
    pipeline = photos.pipeline(dataset={"path": "data/rows.jsonl", "key": "id"}, params=body)
    report = photos.build(pipeline)
    (part,) = (photos.submission_folder(pipeline, report)).glob("part-*.jsonl")
    content = orjson.loads(part.read_bytes())["params"]["messages"][0]["content"]
    assert base64.b64decode(content[0]["source"]["data"]) == png()
    assert content[1]["text"] == "logo: " + base64.b64encode(b"logo").decode()
    assert (report.rows, report.rejected) == (9, 8)
    table = photos.collect(pipeline) and photos.table(pipeline)
    rejected = table[table["result_type"] == "rejected"]
    assert set(rejected["error_type"]) == {"template_error"}
    messages = dict(zip(rejected["id"], rejected["error_message"], strict=True))
    for key in ("up", "around", "absolute", "link"):
        assert "is outside the dataset's folder" in messages[key]
    for key in ("none", "folder", "url"):
        assert "there is no file" in messages[key]


def test_a_file_with_a_constant_name_is_read_when_rows_are_rendered(photos: World) -> None:
    """When the pipeline is loaded, there is no dataset yet."""
    body = params("see {{ 'logo.bin' | file_base64 }} for all")
    pipeline = photos.pipeline(dataset={"path": "data/rows.jsonl", "key": "id"}, params=body)
    report = photos.build(pipeline)
    assert (report.requests, report.rejected) == (1, 0)
