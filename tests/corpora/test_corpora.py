"""Every file is read rightly or refused with file and place; a damaged one never ends in a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.errors import DatasetError

from .cases import CASES, CSV, JSON, Case
from .judge import problem_of, rows_of
from .shapes import SHAPES


@pytest.mark.parametrize("case", [*CASES, *SHAPES], ids=lambda case: case.name)
def test_the_verdict_of_each_case_holds(tmp_path: Path, case: Case) -> None:
    assert problem_of(case, tmp_path) is None


def _damaged(content: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(damaged) + 1)
        match draw.randrange(3):
            case 0:
                del damaged[at : at + draw.randint(1, 5)]
            case 1:
                damaged[at:at] = draw.choice(
                    [b'"', b",", b"\n", b"\r", b"\\", b"\x00", b"\xff", b"[", b"{", b"1e999"]
                )
            case _:
                damaged[at : at + 1] = bytes([draw.randrange(256)])
    return bytes(damaged)


@pytest.mark.parametrize("bad_rows", ["refuse", "reject"])
@pytest.mark.parametrize("case", [*CSV, *JSON], ids=lambda case: case.name)
def test_a_damaged_file_is_read_or_refused_by_name(tmp_path: Path, case: Case, bad_rows: str) -> None:
    draw = random.Random(case.name)
    for _ in range(12):
        (tmp_path / case.name).write_bytes(_damaged(case.content, draw))
        try:
            rows_of(tmp_path, case.name, {**case.dataset, "bad_rows": bad_rows})
        except DatasetError as error:
            assert case.name in str(error)


def test_a_damaged_parquet_file_is_read_or_refused_by_name(tmp_path: Path) -> None:
    table = pa.table({"a": ["x", None, "z"] * 50, "b": [[1], [], None] * 50, "c": [{"d": 1.5}] * 150})
    pq.write_table(table, tmp_path / "a.parquet", write_page_checksum=True)
    content = (tmp_path / "a.parquet").read_bytes()
    draw = random.Random(5)
    for _ in range(150):
        (tmp_path / "a.parquet").write_bytes(_damaged(content, draw))
        try:
            rows_of(tmp_path, "a.parquet", {})
        except DatasetError as error:
            assert "a.parquet" in str(error)
