"""Create bodies are accepted if and only if they are valid, in any layout, and every request is found."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_assets.emulator.body import index_body
from batch_assets.emulator.wire import HttpError

scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8)
nested = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["custom_id", "params", "requests", 'x"y\\', "é"]), inner, max_size=3)
    ),
    max_leaves=8,
)
some_params = st.dictionaries(st.sampled_from(["custom_id", "messages", 'a"}', "{"]), nested, max_size=3)
in_a_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def indexed(path: Path, body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Index a body, and read its requests at the recorded positions."""
    path.write_bytes(body)
    seen: list[tuple[str, dict[str, Any]]] = []
    attempts: list[int] = []

    def judge(custom_id: str, params: dict[str, Any]) -> int:
        attempts.append(len(seen))
        seen.append((custom_id, params))
        return len(custom_id)

    index = index_body(path, judge)
    requests = [
        orjson.loads(body[start : start + length])
        for start, length in zip(index.offsets, index.lengths, strict=True)
    ]
    assert list(index.outcomes) == [len(request["custom_id"]) for request in requests]
    return [(request["custom_id"], request["params"]) for request in requests]


@in_a_file
@given(
    st.lists(some_params, min_size=1, max_size=4),
    st.sampled_from([None, 1]),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")]),
    st.booleans(),
    st.booleans(),
)
def test_bodies_in_every_layout_are_accepted(
    tmp_path: Path,
    every: list[dict[str, Any]],
    indent: int | None,
    separators: tuple[str, str],
    ascii_only: bool,
    params_first: bool,
) -> None:
    requests: list[dict[str, Any]] = [
        {"custom_id": f"r{at}", "params": params_} for at, params_ in enumerate(every)
    ]
    laid_out = [dict(reversed(request.items())) if params_first else request for request in requests]
    body = json.dumps({"requests": laid_out}, indent=indent, separators=separators, ensure_ascii=ascii_only)
    expected = [(request["custom_id"], request["params"]) for request in requests]
    assert indexed(tmp_path / "body", f" \n{body}\r\n".encode()) == expected


@in_a_file
@given(st.data())
def test_damaged_bodies_are_refused_if_they_are_not_valid_json(tmp_path: Path, data: st.DataObject) -> None:
    requests = [{"custom_id": f"r{at}", "params": {"t": ['a"', {"custom_id": "x"}]}} for at in range(3)]
    body = bytearray(json.dumps({"requests": requests}, separators=(",", ":")).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b'"', b"{", b"]", b",", b"\\"])
        )
    try:
        orjson.loads(body)
        valid = True
    except orjson.JSONDecodeError:
        valid = False
    try:
        indexed(tmp_path / "body", bytes(body))
        refusal = ""
    except HttpError as error:
        refusal = error.message
    assert refusal.startswith("The request body is not valid JSON") == (not valid)


def test_large_gaps_and_escaped_keys(tmp_path: Path) -> None:
    gap = b" " * 100_000
    body = b'{"\\u0072equests":' + gap + b'[{"custom_id":"a","params":{}}' + gap + b"]" + gap + b"}"
    assert indexed(tmp_path / "body", body) == [("a", {})]


@pytest.mark.parametrize("body", [b"[]", b"7", b'"requests"', b"null"])
def test_a_body_that_is_not_an_object_is_refused(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(HttpError, match="valid dictionary"):
        indexed(tmp_path / "body", body)
