"""Every feature of a Messages API request can be written in params, and is built from rows of a dataset."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.emulator.params import check_params
from tests.media import PDF, png

from ..support import World, params

PNG = png()


def built(world: World, rows: list[dict[str, Any]] | pa.Table, body: dict[str, Any], **more: Any) -> list[Any]:
    """The params in the request file, in the order of the rows, checked like the API does."""
    if isinstance(rows, pa.Table):
        pq.write_table(rows, world.folder / "rows.parquet")
        dataset = {"path": "rows.parquet", "columns": []}
    else:
        (world.folder / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
        dataset = {"path": "rows.jsonl", "columns": []}
    pipeline = world.pipeline(dataset=dataset, params=body, **more)
    report = world.build(pipeline)
    assert report.rejected == 0
    (part,) = world.submission_folder(pipeline, report).glob("part-*.jsonl")
    bodies = [orjson.loads(line)["params"] for line in part.read_bytes().splitlines()]
    assert [check_params(request) for request in bodies] == [None] * len(bodies)
    return bodies


def test_several_turns(world: World) -> None:
    body = params()
    body["messages"] = [
        {"role": "user", "content": "Is it a {{ kind }}?"},
        {"role": "assistant", "content": [{"type": "text", "text": "{{ first }}"}]},
        "{{ [{'role': 'user', 'content': 'Sure?'}] if doubt else none }}",
        {"role": "user", "content": "{{ last }}"},
    ]
    first, second = built(
        world,
        [
            {"kind": "cat", "first": "no", "last": "why?", "doubt": True},
            {"kind": "dog", "first": "yes", "last": "go on", "doubt": False},
        ],
        body,
    )
    assert [message["role"] for message in first["messages"]] == ["user", "assistant", "user", "user"]
    assert second["messages"][2:] == [{"role": "user", "content": "go on"}]


def test_few_shots_from_a_file(world: World) -> None:
    (world.folder / "shots.yaml").write_text(
        "- role: user\n  content: is it {{ kind }}?\n- {role: assistant, content: no}\n"
    )
    body = params()
    body["messages"] = ["{{ load('shots.yaml') }}", {"role": "user", "content": "{{ text }}"}]
    (request,) = built(world, [{"text": "t"}], body)
    assert request["messages"] == [
        {"role": "user", "content": "is it {{ kind }}?"},  # data, not a template
        {"role": "assistant", "content": "no"},  # text, not false
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
    first, second = built(world, rows, params(system=system))
    assert [block["text"] for block in first["system"]] == ["A long guide.", "Be brief.\nBe strict."]
    assert first["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert [block["text"] for block in second["system"]] == ["A long guide.", "Be brief.\n", "n"]


def test_tools_and_a_forced_tool_call(world: World) -> None:
    """A field named `text` in a tool's JSON is not a text of the API."""
    schema = {"type": "object", "properties": {"text": {}, "content": {"type": "string", "description": ""}}}
    tools = [{"name": "note", "description": "Takes {{ kind }} down.", "strict": False, "input_schema": schema}]
    shots = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "note",
                                           "input": {"text": None, "content": "", "kind": "{{ kind }}"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "done"}]},
        {"role": "user", "content": "{{ text }}"},
    ]  # fmt: skip
    body = {**params(tools=tools, tool_choice={"type": "tool", "name": "note"}), "messages": shots}
    (request,) = built(world, [{"text": "t", "kind": "letters"}], body)
    assert request["tools"][0]["description"] == "Takes letters down."
    assert request["tools"][0]["input_schema"] == schema
    assert request["messages"][1]["content"][0]["input"] == {"text": None, "content": "", "kind": "letters"}
    (world.folder / "tools.json").write_bytes(orjson.dumps(tools))
    loaded = {**body, "tools": "{{ load('tools.json') }}"}
    (request,) = built(world, [{"text": "t", "kind": "letters"}], loaded)
    assert request["tools"] == tools


def test_thinking_and_output_config(world: World) -> None:
    body = params(
        max_tokens="{{ 2000 if hard else 100 }}",
        thinking="{{ {'type': 'adaptive'} if hard else {'type': 'disabled'} }}",
        output_config={"effort": "{{ 'high' if hard else 'low' }}"},
        stop_sequences=["END {{ text }}"],
        metadata={"user_id": "u-{{ text }}"},
        service_tier="auto",
    )
    first, second = built(world, [{"text": "a", "hard": True}, {"text": "b", "hard": False}], body)
    assert (first["max_tokens"], first["thinking"], first["output_config"]) == (
        2000, {"type": "adaptive"}, {"effort": "high"}
    )  # fmt: skip
    assert (second["max_tokens"], second["thinking"]) == (100, {"type": "disabled"})
    assert (second["stop_sequences"], second["metadata"]) == (["END b"], {"user_id": "u-b"})


def test_pictures_and_documents_from_paths_columns_and_urls(world: World) -> None:
    (world.folder / "a.png").write_bytes(PNG)
    (world.folder / "a.pdf").write_bytes(PDF)
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
    (request,) = built(world, table, params(content))
    blocks = request["messages"][0]["content"]
    assert base64.b64decode(blocks[0]["source"]["data"]) == base64.b64decode(blocks[1]["source"]["data"]) == PNG
    assert base64.b64decode(blocks[3]["source"]["data"]) == PDF
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
    """From JSON Lines and from Parquet."""
    content = """{{ id }}:{% for tag in tags or [] %} {{ loop.index }}.{{ tag }}{% else %} none{% endfor %}
{%- for part in parts or [] if part.n %}; {{ part.name }}={{ part.n }}{% endfor %}
{%- if owner %}; {{ owner.name | upper }} {{ owner.seen | join('+') if owner.seen else '-' }}{% endif %}"""
    expected = ["k1: 1.red 2.blue; a=1; X 1+2", "k2: none; Y -", "k3: none"]
    for rows in (NESTED, NESTED.to_pylist()):
        requests = built(world, rows, params(content))
        assert [request["messages"][0]["content"] for request in requests] == expected


def test_a_whole_expression_keeps_lists_and_structs(world: World) -> None:
    messages = pa.table(
        {
            "turns": [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], None],
            "blocks": [[{"type": "text", "text": "c"}]] * 2,
        }
    )
    body = params()
    body["messages"] = ["{{ turns }}", {"role": "user", "content": ["{{ blocks }}"]}]
    first, second = built(world, messages, body)
    assert [message["content"] for message in first["messages"]] == ["a", "b", [{"type": "text", "text": "c"}]]
    assert len(second["messages"]) == 1


def test_macros_from_the_pipelines_folder(world: World) -> None:
    (world.folder / "parts").mkdir()
    (world.folder / "parts" / "macros.md").write_text("{% macro item(x) %}<{{ x }}>{% endmacro %}")
    source = "{% import 'parts/macros.md' as m %}{% for t in tags %}{{ m.item(t) }}{% endfor %}"
    (request,) = built(world, [{"tags": ["a", "b"]}], params(source))
    assert request["messages"][0]["content"] == "<a><b>"


def test_a_rejected_row_has_the_field_and_the_line_of_the_error(world: World) -> None:
    (world.folder / "inner.md").write_text("first\ntwo {{ v.more.deep }}\n")
    (world.folder / "rows.jsonl").write_bytes(b'{"id":"good","v":{"more":{"deep":1}}}\n{"id":"bad","v":{}}\n')
    body = params("x", system="a\n\n{{ v.more.deep }} b")
    pipeline = world.pipeline("rows.jsonl", params=body)
    report = world.build(pipeline)
    rejected = pq.read_table(world.submission_folder(pipeline, report) / "rejected.parquet").to_pylist()
    assert [(row["id"], row["reason"]) for row in rejected] == [("bad", "template_error")]
    assert rejected[0]["message"].startswith("params.system: ")
    assert rejected[0]["message"].endswith("has no attribute 'deep' (line 3)")
    pipeline = world.pipeline("rows.jsonl", params=params("x\n{% include 'inner.md' %}"))
    report = world.build(pipeline)
    (row,) = pq.read_table(world.submission_folder(pipeline, report) / "rejected.parquet").to_pylist()
    assert row["message"].endswith("has no attribute 'deep' (inner.md, line 2)")
