"""Everything that a request of the Messages API can say, said in params, through load, dataset and build."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.emulator.params import check_params

from ..support import World, params

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))


def built(world: World, rows: list[dict[str, Any]] | pa.Table, asked: dict[str, Any], **more: Any) -> list[Any]:
    """The params of the requests in the request file, which the API would take, in the rows' order."""
    if isinstance(rows, pa.Table):
        pq.write_table(rows, world.folder / "rows.parquet")
        dataset = {"path": "rows.parquet", "columns": []}
    else:
        (world.folder / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
        dataset = {"path": "rows.jsonl", "columns": []}
    pipeline = world.pipeline(dataset=dataset, params=asked, **more)
    report = world.build(pipeline)
    assert report.rejected == 0
    (part,) = world.submission_folder(pipeline, report).glob("part-*.jsonl")
    found = [orjson.loads(line)["params"] for line in part.read_bytes().splitlines()]
    assert [check_params(request) for request in found] == [None] * len(found)
    return found


def test_several_turns(world: World) -> None:
    asked = params()
    asked["messages"] = [
        {"role": "user", "content": "Is it a {{ kind }}?"},
        {"role": "assistant", "content": [{"type": "text", "text": "{{ first }}"}]},
        "{{ [{'role': 'user', 'content': 'Sure?'}] if doubt else none }}",
        {"role": "user", "content": "{{ last }}"},
    ]
    one, two = built(
        world,
        [
            {"kind": "cat", "first": "no", "last": "why?", "doubt": True},
            {"kind": "dog", "first": "yes", "last": "go on", "doubt": False},
        ],
        asked,
    )
    assert [message["role"] for message in one["messages"]] == ["user", "assistant", "user", "user"]
    assert two["messages"][2:] == [{"role": "user", "content": "go on"}]


def test_few_shots_from_a_file(world: World) -> None:
    (world.folder / "shots.yaml").write_text(
        "- role: user\n  content: is it {{ kind }}?\n- {role: assistant, content: no}\n"
    )
    asked = params()
    asked["messages"] = ["{{ load('shots.yaml') }}", {"role": "user", "content": "{{ text }}"}]
    (found,) = built(world, [{"text": "t"}], asked)
    assert found["messages"] == [
        {"role": "user", "content": "is it {{ kind }}?"},  # data, not a template
        {"role": "assistant", "content": "no"},  # and not false
        {"role": "user", "content": "t"},
    ]


def test_system_blocks_with_a_cache_and_a_row(world: World) -> None:
    (world.folder / "rules.md").write_text("Be brief.\n{% if strict %}Be strict.{% endif %}")
    (world.folder / "guide.md").write_text("A long guide.")
    system = [
        {"type": "text", "text": "{% include 'guide.md' %}", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "{% include 'rules.md' %}"},
        "{{ {'type': 'text', 'text': note} if note else none }}",
    ]
    rows = [{"text": "a", "strict": True, "note": None}, {"text": "b", "strict": False, "note": "n"}]
    one, two = built(world, rows, params(system=system))
    assert [block["text"] for block in one["system"]] == ["A long guide.", "Be brief.\nBe strict."]
    assert one["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert [block["text"] for block in two["system"]] == ["A long guide.", "Be brief.\n", "n"]


def test_tools_and_a_forced_one(world: World) -> None:
    """What is called text in a tool's JSON is none of the API's text."""
    schema = {"type": "object", "properties": {"text": {}, "content": {"type": "string", "description": ""}}}
    tools = [{"name": "note", "description": "Takes {{ kind }} down.", "strict": False, "input_schema": schema}]
    shots = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "note",
                                           "input": {"text": None, "content": "", "kind": "{{ kind }}"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "done"}]},
        {"role": "user", "content": "{{ text }}"},
    ]  # fmt: skip
    asked = {**params(tools=tools, tool_choice={"type": "tool", "name": "note"}), "messages": shots}
    (found,) = built(world, [{"text": "t", "kind": "letters"}], asked)
    assert found["tools"][0]["description"] == "Takes letters down."
    assert found["tools"][0]["input_schema"] == schema
    assert found["messages"][1]["content"][0]["input"] == {"text": None, "content": "", "kind": "letters"}
    (world.folder / "tools.json").write_bytes(orjson.dumps(tools))
    loaded = {**asked, "tools": "{{ load('tools.json') }}"}
    (found,) = built(world, [{"text": "t", "kind": "letters"}], loaded)
    assert found["tools"] == tools


def test_thinking_and_output_config(world: World) -> None:
    asked = params(
        max_tokens="{{ 2000 if hard else 100 }}",
        thinking="{{ {'type': 'adaptive'} if hard else {'type': 'disabled'} }}",
        output_config={"effort": "{{ 'high' if hard else 'low' }}"},
        stop_sequences=["END {{ text }}"],
        metadata={"user_id": "u-{{ text }}"},
        service_tier="auto",
    )
    one, two = built(world, [{"text": "a", "hard": True}, {"text": "b", "hard": False}], asked)
    assert (one["max_tokens"], one["thinking"], one["output_config"]) == (
        2000, {"type": "adaptive"}, {"effort": "high"}
    )  # fmt: skip
    assert (two["max_tokens"], two["thinking"]) == (100, {"type": "disabled"})
    assert (two["stop_sequences"], two["metadata"]) == (["END b"], {"user_id": "u-b"})


def test_pictures_and_documents_from_paths_columns_and_urls(world: World) -> None:
    (world.folder / "a.png").write_bytes(PNG)
    (world.folder / "a.pdf").write_bytes(b"%PDF-1.7")
    png = {"type": "base64", "media_type": "image/png"}
    content = [
        {"type": "image", "source": {**png, "data": "{{ p | file_base64 }}"}},
        {"type": "image", "source": {"type": "base64", "media_type": "{{ kind }}", "data": "{{ raw | base64 }}"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/{{ name }}.png"}},
        {"type": "document", "title": "{{ name }}", "citations": {"enabled": True},
         "source": {"type": "base64", "media_type": "application/pdf", "data": "{{ 'a.pdf' | file_base64 }}"}},
        {"type": "document", "source": {"type": "url", "url": "{{ url }}"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "{{ name }}"}},
        {"type": "text", "text": "What is it?", "cache_control": {"type": "ephemeral"}},
    ]  # fmt: skip
    table = pa.table(
        {"p": ["a.png"], "raw": [PNG], "kind": ["image/png"], "name": ["n"], "url": ["https://u.org"]}
    )
    (found,) = built(world, table, params(content))
    blocks = found["messages"][0]["content"]
    assert base64.b64decode(blocks[0]["source"]["data"]) == base64.b64decode(blocks[1]["source"]["data"]) == PNG
    assert base64.b64decode(blocks[3]["source"]["data"]) == b"%PDF-1.7"
    assert (blocks[2]["source"]["url"], blocks[4]["source"]["url"]) == (
        "https://example.org/n.png",
        "https://u.org",
    )


NESTED = pa.table(
    {
        "tags": [["red", "blue"], [], None],
        "parts": [[{"name": "a", "n": 1}, {"name": "b", "n": None}], [], None],
        "owner": [{"name": "x", "seen": [1, 2]}, {"name": "y", "seen": None}, None],
        "id": ["k1", "k2", "k3"],
    }
)


def test_loops_and_conditions_over_lists_and_structs(world: World) -> None:
    """Of JSON Lines and Parquet alike."""
    content = """{{ id }}:{% for tag in tags or [] %} {{ loop.index }}.{{ tag }}{% else %} none{% endfor %}
{%- for part in parts or [] if part.n %}; {{ part.name }}={{ part.n }}{% endfor %}
{%- if owner %}; {{ owner.name | upper }} {{ owner.seen | join('+') if owner.seen else '-' }}{% endif %}"""
    expected = ["k1: 1.red 2.blue; a=1; X 1+2", "k2: none; Y -", "k3: none"]
    for rows in (NESTED, NESTED.to_pylist()):
        found = built(world, rows, params(content))
        assert [request["messages"][0]["content"] for request in found] == expected


def test_a_whole_expression_keeps_lists_and_structs(world: World) -> None:
    messages = pa.table(
        {
            "turns": [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], None],
            "blocks": [[{"type": "text", "text": "c"}]] * 2,
        }
    )
    asked = params()
    asked["messages"] = ["{{ turns }}", {"role": "user", "content": ["{{ blocks }}"]}]
    one, two = built(world, messages, asked)
    assert [message["content"] for message in one["messages"]] == ["a", "b", [{"type": "text", "text": "c"}]]
    assert len(two["messages"]) == 1


def test_macros_of_the_pipelines_folder(world: World) -> None:
    (world.folder / "parts").mkdir()
    (world.folder / "parts" / "macros.md").write_text("{% macro item(x) %}<{{ x }}>{% endmacro %}")
    source = "{% import 'parts/macros.md' as m %}{% for t in tags %}{{ m.item(t) }}{% endfor %}"
    (found,) = built(world, [{"tags": ["a", "b"]}], params(source))
    assert found["messages"][0]["content"] == "<a><b>"


def test_what_fails_for_a_row_names_the_row_the_field_and_the_line(world: World) -> None:
    (world.folder / "inner.md").write_text("one\ntwo {{ v.more.deep }}\n")
    (world.folder / "rows.jsonl").write_bytes(b'{"id":"good","v":{"more":{"deep":1}}}\n{"id":"bad","v":{}}\n')
    asked = params("x", system="a\n\n{{ v.more.deep }} b")
    pipeline = world.pipeline("rows.jsonl", params=asked)
    report = world.build(pipeline)
    said = pq.read_table(world.submission_folder(pipeline, report) / "rejected.parquet").to_pylist()
    assert [(row["id"], row["reason"]) for row in said] == [("bad", "template_error")]
    assert said[0]["message"].startswith("params.system: ")
    assert said[0]["message"].endswith("has no attribute 'deep' (line 3)")
    pipeline = world.pipeline("rows.jsonl", params=params("x\n{% include 'inner.md' %}"))
    report = world.build(pipeline)
    (row,) = pq.read_table(world.submission_folder(pipeline, report) / "rejected.parquet").to_pylist()
    assert row["message"].endswith("has no attribute 'deep' (inner.md, line 2)")
