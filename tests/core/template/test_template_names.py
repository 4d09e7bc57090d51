"""Which columns a template reads: by name, hiding Jinja's functions, and through `row`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.core.errors import ConfigError
from batch_assets.core.template.template import RowRejectedError, Template

from ..support import World, params

FUNCTIONS = ["range", "dict", "cycler", "joiner", "namespace"]


def template(source: Any, columns: list[str], folder: Path = Path("/nowhere")) -> Template:
    """A template compiled for a dataset with these columns."""
    return Template({"k": source}, folder, "x/defs.yaml").fitted(columns)


def render(source: Any, row: dict[str, Any], folder: Path = Path("/nowhere")) -> Any:
    """Render a row that has only the columns that the template reads."""
    compiled = template(source, list(row), folder)
    return orjson.loads(compiled.render({name: row[name] for name in compiled.columns}))["k"]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("source", ["{{ NAME }}", "a {{ NAME }}", "{{ NAME | upper }}", "a {{ NAME | upper }}"])
def test_a_column_hides_a_function_of_the_same_name(name: str, source: str) -> None:
    source = source.replace("NAME", name)
    assert render(source, {name: "X", "other": "o"}) == ("a X" if source.startswith("a") else "X")
    assert template(source, [name, "other"]).columns == {name}
    assert render("{{ NAME is string }}".replace("NAME", name), {name: "X"}) is True
    assert render("{{ NAME is string }}".replace("NAME", name), {"other": "o"}) is False


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("source", ["{{ NAME }}", "a {{ NAME }}", "{{ [NAME] }}"])
def test_a_function_as_a_value_rejects_the_row(name: str, source: str) -> None:
    """It would print its memory address, which differs from process to process."""
    compiled = template(source.replace("NAME", name), ["other"])
    assert compiled.columns == set()
    with pytest.raises(RowRejectedError, match=r"params\.k: .*function"):
        compiled.render({})


def test_functions_work_if_no_column_has_their_name() -> None:
    assert render("{% for i in range(n) %}{{ i }}{% endfor %}", {"n": 3}) == "012"
    source = "{% set s = namespace(n=0) %}{% for i in v %}{% set s.n = s.n + i %}{% endfor %}{{ s.n }}"
    assert render(source, {"v": [1, 2]}) == "3"
    assert render("{% for i in range(2) %}x{% endfor %}", {}) == "xx"


def test_a_filters_items_become_a_list_but_not_text() -> None:
    assert render("{{ v | map('upper') }}", {"v": ["a"]}) == ["A"]
    with pytest.raises(RowRejectedError, match=r"add \| list"):
        render("x {{ v | map('upper') }}", {"v": ["a"]})


ODD = {"Review Text": "good", "none": 1, "self": 2, "items": 3, "plain": 4, "in": None, "word": "Text"}


@pytest.mark.parametrize(
    ("source", "value", "columns"),
    [
        ("{{ row['Review Text'] }}", "good", {"Review Text"}),
        ("<{{ row['Review Text'] }}>", "<good>", {"Review Text"}),
        ("<{{ row['in'] }}{{ row.plain }}>", "<4>", {"in", "plain"}),
        ("{{ row['none'] }}", 1, {"none"}),
        ("{{ row['self'] }}", 2, {"self"}),
        ("{{ row.plain + plain }}", 8, {"plain"}),
        ("{{ row['Review ' ~ word] }}", "good", set(ODD)),
        ("{% set n = 'Review Text' %}{{ row[n] }}", "good", set(ODD)),
        ("{{ row }}", ODD, set(ODD)),
        ("{% for k, v in row.items() %}{{ k }}={{ v }};{% endfor %}",
         "Review Text=good;none=1;self=2;items=3;plain=4;in=;word=Text;", set(ODD)),
        ("{% for row in [1, 2] %}{{ row }}{% endfor %}", "12", set()),
        ("{{ row.plain }}{% for row in [{'b': 1}] %}{{ row.b }}{% endfor %}", "41", set(ODD)),
    ],
)  # fmt: skip
def test_the_row_has_only_the_columns_that_are_needed(source: str, value: Any, columns: set[str]) -> None:
    assert template(source, list(ODD)).columns == columns
    assert render(source, ODD) == value


def test_the_row_is_in_the_datasets_order_whatever_its_own_order() -> None:
    compiled = template("{{ row }}", ["b", "a", "c"])
    assert compiled.render({"a": 1, "c": 2, "b": 3}) == b'{"k":{"b":3,"a":1,"c":2}}'


def test_a_column_named_row_hides_the_row() -> None:
    source = "{{ row.x }} {{ other }}"
    assert render(source, {"row": {"x": 5}, "other": 6}) == "5 6"
    assert template(source, ["row", "other", "x"]).columns == {"row", "other"}
    assert render("{{ row }}", {"row": 7}) == 7
    for hidden in ("{{ row['a b'] }}", "see {{ row['a b'] }}"):
        with pytest.raises(
            RowRejectedError, match=r"which hides the row itself, so `row\['a b'\]` is not the column"
        ):
            render(hidden, {"row": "x", "a b": "y"})
    with pytest.raises(RowRejectedError, match=r"has no attribute 'c'$"):
        render("{{ row['c'] }}", {"row": "x", "a b": "y"})


def test_a_template_can_be_fitted_to_several_datasets() -> None:
    compiled = template("{{ range }}{{ row['a b'] }}", ["range", "a b"])
    assert compiled.columns == {"range", "a b"}
    assert compiled.fitted(["row"]).columns == {"row"}
    assert compiled.fitted(["a b"]).columns == {"a b"}
    assert compiled.columns == {"range", "a b"}


def test_a_fitted_template_uses_the_file_contents_that_were_read_before(tmp_path: Path) -> None:
    """So an edit of a prompt file after the load has no effect, instead of half an effect."""
    (tmp_path / "a.md").write_text("one {{ v }}")
    (tmp_path / "b.json").write_text('["one"]')
    compiled = Template({"k": "{% include 'a.md' %}", "l": "{{ load('b.json') }}"}, tmp_path, "x/defs.yaml")
    (tmp_path / "a.md").write_text("two {{ v }}")
    (tmp_path / "b.json").write_text('["two"]')
    assert compiled.fitted(["v"]).render({"v": 1}) == b'{"k":"one 1","l":["one"]}'


def test_a_column_that_an_included_file_reads_has_the_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "outer.md").write_text("a\n{% for x in xs %}{{ x }}{% endfor %}\n{% include 'inner.md' %}")
    (tmp_path / "inner.md").write_text("b\n\n{{ deep }} {{ row['A b'] }}\n{{ row.c }} {{ deep }}")
    template = Template({"system": "{{ own }}{% include 'outer.md' %}"}, tmp_path, "x")
    locations = {name: template.where(name) for name in sorted(template.columns)}
    assert locations == {
        "A b": "params.system (inner.md, line 3)",
        "c": "params.system (inner.md, line 4)",
        "deep": "params.system (inner.md, line 3)",
        "own": "params.system",
        "xs": "params.system (outer.md, line 2)",
    }


def test_included_files_can_read_the_row(tmp_path: Path) -> None:
    (tmp_path / "inner.md").write_text("{{ row['Review Text'] }} {{ range }}")
    assert render("{% include 'inner.md' %}!", {"Review Text": "t", "range": "r", "x": 1}, tmp_path) == "t r!"


def test_an_error_names_the_column_that_cannot_be_read_by_its_name() -> None:
    assert template("{{ self }}", ["other"]).columns == set()
    with pytest.raises(ConfigError, match=r"x/defs.yaml.*k.*`row\['self'\]`"):
        template("a {{ self }}", ["self"])


def test_an_error_names_a_missing_column_that_is_read_through_the_row(world: World) -> None:
    with pytest.raises(ConfigError, match=r"params.messages\[0\].content.*reads 'Txt'.*its columns: id, text"):
        world.build(world.pipeline({"a": "x"}, params=params("{{ row['Txt'] }}")))


def test_columns_with_unusual_names_get_results(world: World) -> None:
    (world.folder / "rows.csv").write_text("id,Review Text,range,row\na,good,5,r\n")
    body = params("{{ range }} {{ row }}", system="{{ dict(a=id).a }}")
    table = world.run(world.pipeline("rows.csv", params=body))
    assert list(table["result_type"]) == ["succeeded"]
    (batch,) = world.accepted()
    (request,) = orjson.loads(world.sent_body(batch["id"]))["requests"]
    assert request["params"]["messages"][0]["content"] == "5 r"
    assert request["params"]["system"] == "a"


@pytest.mark.parametrize(
    ("source", "picks"),
    [
        ("{% include 'a.txt' %}", False),
        ("{{ load('a.json') }}{% from 'a.txt' import m %}", False),
        ("{% include 'a.txt' ignore missing %}", True),
        ("{% include ['a.txt', 'b.txt'] %}", True),
        ("{% include x ~ '.txt' %}", True),
        ("{% if x %}{% import x as m %}{% endif %}", True),
        ("{% if x %}{{ load(x) }}{% endif %}", True),
        ("{% set l = load %}{{ l('a.json') }}", True),
        ("{% if x %}{% set load = x %}{% endif %}{{ load('a.json') }}", False),
        ("{% include 'inner.txt' %}", True),
    ],
)
def test_templates_say_if_their_files_are_not_known_before(tmp_path: Path, source: str, picks: bool) -> None:
    (tmp_path / "a.txt").write_text("{% macro m() %}{% endmacro %}")
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "inner.txt").write_text("{% include x %}")

    assert template(source, ["x"], tmp_path).picks_files == picks
