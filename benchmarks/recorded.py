"""`python -m benchmarks.recorded FILE`: whether result lines of the real API reach the table without loss.

FILE holds result lines as the API returned them, such as the download of a batch of your own. As many requests
are sent to an emulator of its own, which then answers with these lines over HTTP, every byte unchanged except for
the custom_id. The columns of each row must agree with its line: the raw message byte for byte, text, tool calls,
tokens, reasons, and the cost, computed again for every model that has a price.

Exits with 1 if anything differs, and prints where.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

import batch_assets.core
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.emulator import Emulator
from benchmarks.comparison import Findings
from benchmarks.fidelity import attributes, finish, root_in, send
from benchmarks.plain_rows import Row

_PRICES = Path(batch_assets.core.__path__[0]) / "prices" / "prices.yaml"
_CUSTOM_ID = re.compile(rb'("custom_id"\s*:\s*)"[^"]*"')
_SURROGATES = re.compile("[\ud800-\udfff]")
_RESULTS = {"method": "GET", "path": "/v1/messages/batches/*/results"}
# With a tool in the request, the table has a column of tool calls.
_TOOLS = [{"name": "any", "input_schema": {"type": "object"}}]
_TOKENS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def replay(emulator: Emulator, folder: Path, content: bytes) -> Findings:
    """Answer as many requests with the lines, and compare.

    Args:
        emulator: Without latency.
        folder: Empty; dataset and root are made in it.
        content: Result lines, at most as many as one batch has. Each line gets another custom_id.
    """
    lines = [line for line in content.split(b"\n") if line.strip()]
    rows = [json.dumps({"id": number, "text": f"request {number}"}) for number in range(len(lines))]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    pipeline = load_pipeline(
        attributes({"path": "rows.jsonl", "key": "id"}, "{{ text }}", tools=_TOOLS), folder=folder
    )
    with root_in(emulator, folder) as root:
        send(root, pipeline)
        custom_ids = emulator.log(custom_ids=True)[-1]["custom_ids"]
        sent = [
            _CUSTOM_ID.sub(rb'\1"%b"' % custom_id.encode(), line, count=1)
            for custom_id, line in zip(custom_ids, lines, strict=True)
        ]
        body = (b"\n".join(sent) + content[len(content.rstrip()) :]).decode()  # early recordings end without one
        emulator.faults([{"match": _RESULTS, "action": {"status": 200, "body": body}}])
        table = finish(root)
        emulator.reset_faults()
    findings = Findings()
    prices = yaml.safe_load(_PRICES.read_text("utf-8"))
    for number, (line, result) in enumerate(zip(sent, table.to_pylist(), strict=True), 1):
        _compare(findings, f"line {number}", line, result, prices)
    return findings


def _compare(findings: Findings, where: str, line: bytes, row: Row, prices: dict[str, Any]) -> None:
    """Compare a row with the line that was its answer."""
    entry = json.loads(line)
    result = entry["result"]
    findings.figures[result["type"]] += 1
    findings.equal(f"{where}, custom_id", row["custom_id"], entry["custom_id"])
    findings.equal(f"{where}, result_type", row["result_type"], result["type"])
    if result["type"] != "succeeded":
        error = result.get("error", {}).get("error", {})
        for name in ("type", "message"):
            findings.equal(f"{where}, error_{name}", row[f"error_{name}"], error.get(name))
        return
    message = result["message"]
    usage, raw = message["usage"], row["response_json"] or ""
    findings.equal(f"{where}, response_json", json.loads(raw or "null"), message)
    findings.equal(f"{where}, the message's bytes", raw.encode() in line, True)
    blocks: dict[str, list[dict[str, Any]]] = {}
    for block in message["content"]:
        findings.figures[f"blocks, {block['type']}"] += 1
        blocks.setdefault(block["type"], []).append(block)
    texts = [_SURROGATES.sub("\ufffd", block["text"]) for block in blocks.get("text", [])]
    findings.equal(f"{where}, response_text", row["response_text"], "".join(texts) if texts else None)
    called = [(block["id"], block["name"], block["input"]) for block in blocks.get("tool_use", [])]
    calls = [(call["id"], call["name"], json.loads(call["input"])) for call in row["tool_calls"] or []]
    findings.equal(f"{where}, tool_calls", calls, called)
    for column, name in {"stop_reason": "stop_reason", "response_model": "model", "message_id": "id"}.items():
        findings.equal(f"{where}, {column}", row[column], message[name])
    for name in _TOKENS:
        findings.equal(f"{where}, {name}", row[name], usage.get(name))
    thinking = (usage.get("output_tokens_details") or {}).get("thinking_tokens")
    findings.equal(f"{where}, thinking_tokens", row["thinking_tokens"], thinking)
    cost = _cost(message["model"], usage, prices)
    findings.figures["priced" if cost is not None else f"no price, {message['model']}"] += 1
    same = row["cost_usd"] == cost or (cost and abs((row["cost_usd"] or 0.0) - cost) < cost * 1e-9)
    if not same:
        findings.differ(f"{where}, cost_usd", row["cost_usd"], cost)


def _cost(model: str, usage: dict[str, Any], prices: dict[str, Any]) -> float | None:
    """USD according to the table of prices; None for a model without a price."""
    entry = prices["models"].get(model) or prices["models"].get(re.sub(r"-\d{8}$", "", model))
    if entry is None:
        return None
    fresh, output, written, read = (usage.get(name) or 0 for name in _TOKENS)
    long_prompt = entry.get("long_prompt")
    rates = long_prompt if long_prompt and fresh + written + read > long_prompt["over"] else entry
    hour = (usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0
    writes = (written - hour) * prices["cache_write_5m_multiplier"] + hour * prices["cache_write_1h_multiplier"]
    total = (fresh + writes) * rates["input"] + output * rates["output"] + read * rates["cache_read"]
    geo = prices["geo_multipliers"].get(usage.get("inference_geo"), 1.0)
    searches = (usage.get("server_tool_use") or {}).get("web_search_requests") or 0
    tokens = total * geo * prices["batch_multiplier"] / 1_000_000
    return float(tokens + searches * prices["fees"]["web_search_requests"])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recorded",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="result lines of the API")
    try:
        content = parser.parse_args().file.read_bytes()
        with tempfile.TemporaryDirectory() as folder, Emulator() as emulator:
            findings = replay(emulator, Path(folder), content)
    except (BatchAssetsError, OSError) as error:
        sys.exit(str(error))
    findings.print()
    sys.exit(1 if findings.mismatches else 0)


if __name__ == "__main__":
    main()
