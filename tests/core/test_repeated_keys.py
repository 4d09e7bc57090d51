"""A key that is twice in one object of JSON or map of YAML is named, in whatever is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.errors import ConfigError
from batch_assets.core.repeated_keys import RepeatedKeyError, check_yaml
from batch_assets.core.template.json_filters import from_json

from .support import make_pipeline, params


@pytest.mark.parametrize("text", ['{"a":1,"b":[{"k":1,"k":2}]}', '{"k":NaN,"k":NaN}', '{"k" : 1, "\\u006b": 1}'])
def test_fromjson_names_the_key(text: str) -> None:
    with pytest.raises(ValueError, match="fromjson: the key 'k' is twice in one object, of which only one value"):
        from_json(text)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("x.json", '{"k": 1,\n "k": 2}', "x.json cannot be read: the key 'k' is twice in one object"),
        ("x.jsonl", '{"k":1}\n{"k":1,"k":2}\n', "x.jsonl cannot be read: line 2: the key 'k' is twice"),
        ("x.yaml", "- k: 1\n- k: 1\n  j: 2\n  k: 3\n", "x.yaml cannot be read: line 4: the key 'k' is twice"),
    ],
)
def test_files_that_templates_load(tmp_path: Path, name: str, content: str, problem: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=problem):
        make_pipeline(tmp_path, "a.csv", params=params(f"{{{{ load('{name}') }}}}"))


def test_a_file_without_such_a_key_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("base: &b {k: 1}\nother: {<<: *b, k: 2}\nlist: [*b, *b]\nyes: no\n")
    (tmp_path / "x.json").write_text('{"k": {"k": "k: "}}')
    make_pipeline(tmp_path, "a.csv", params=params("{{ load('x.yaml').other.k }} {{ load('x.json').k.k }}"))


def test_the_file_of_a_schema(tmp_path: Path) -> None:
    properties = '"a": {"type": "string"}, "a": {"type": "integer"}'
    (tmp_path / "s.json").write_text(
        f'{{"type": "object", "additionalProperties": false, "properties": {{{properties}}}}}'
    )
    with pytest.raises(ConfigError, match=r"output_schema: s\.json: the key 'a' is twice in one object"):
        make_pipeline(tmp_path, "a.csv", output_schema="s.json")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", 3), ("x:\n  - {k: 1, k: 1}\n", 2), ("---\na: 1\n---\nb: {c: {d: 1,\n d: 2}}\n", 5),
        ("k: &r\n  a: *r\n  a: 1\n", 3), ("'a': 1\na: 2\n", 2),
    ],
)  # fmt: skip
def test_yaml(text: str, line: int) -> None:
    with pytest.raises(
        RepeatedKeyError, match=f"^line {line}: the key '.' is twice in one map, of which only one"
    ):
        check_yaml(text)


@pytest.mark.parametrize("value", ["a: 1\nb: {a: 1}\n", "", "- 1\n- 1\n", "? [a]\n: 1\n? [a]\n: 2\n"])
def test_yaml_without_such_a_key(value: Any) -> None:
    check_yaml(value)
