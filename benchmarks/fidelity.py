"""`python -m benchmarks.fidelity FILE`: whether every byte of a file reaches the API, and every answer comes back.

Makes a pipeline over a file of your own, or with --image or --document over a folder or glob of documents, in a
temporary root, runs all stages against an emulator of its own, and compares from outside. The expected request of
a row is made from the file as Python's csv and json or pyarrow read it, and compared with the bodies that the
emulator received. The expected result of a row is made from the lines that the emulator answered, byte for byte,
and from the answers that it must give. Row keys and other columns must be those of the file, in order, each
exactly once.

A row must be rejected if its prompt is empty or its text is not valid Unicode, and no other row. Columns of a CSV
file that hold only timestamps are read as text. Values that are not text are expected as Python prints them.

Exits with 1 if anything differs, and prints where.
"""

from __future__ import annotations

import argparse
import base64
import mimetypes
import sys
import tempfile
import time
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.build import build_requests
from batch_assets.core.results.run import collect_results
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.emulator import Emulator
from benchmarks.comparison import Expected, Findings, Received
from benchmarks.plain_rows import Broken, Row, instants, read_rows
from benchmarks.workload import MAX_TOKENS, MODEL, POLL_SECONDS

NAME = "fidelity"
_ROW_NUMBER = "row_number"
# What the Messages API accepts as a document or an image.
_MEDIA_TYPES = ("application/pdf", "image/gif", "image/jpeg", "image/png", "image/webp", "text/plain")
_SOURCE = {"type": "base64", "media_type": "{{ name | media_type }}", "data": "{{ bytes | base64 }}"}


@dataclass(frozen=True)
class Trial:
    """A dataset, and what is asked about each row.

    Attributes:
        dataset: As in a pipeline file.
        content: The content of the user message, as in a pipeline file.
        expected: What must come of it.
    """

    dataset: dict[str, Any]
    content: Any
    expected: Expected

    def run(self, emulator: Emulator, folder: Path) -> Findings:
        """Ask about every row once, and compare.

        Args:
            emulator: Without latency.
            folder: Empty; the root is made in it.
        """
        before = len(emulator.log())
        with root_in(emulator, folder) as root:
            pipeline = load_pipeline(attributes(self.dataset, self.content), folder=folder)
            send(root, pipeline)
            table = finish(root)
        batches = [entry["id"] for entry in emulator.log()[before:]]
        return self.expected.compare(table, Received(emulator, batches))


def attributes(dataset: dict[str, Any], content: Any, **more: Any) -> dict[str, Any]:
    """The fields of a pipeline that asks about every row once."""
    return {"name": NAME, "dataset": dataset, "params": params(content, **more), "retry": {"max_attempts": 1}}


def params(content: Any, **more: Any) -> dict[str, Any]:
    """The params of a request."""
    return {
        "model": MODEL,
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": content}],
        **more,
    }


def root_in(emulator: Emulator, folder: Path) -> Root:
    """A root in a folder."""
    env = {"BATCH_ASSETS_EMULATOR": emulator.url, "BATCH_ASSETS_ROOT": str(folder / "root")}
    return open_root(Settings.from_env(env))


def send(root: Root, pipeline: Pipeline) -> None:
    """Run `requests` and `batches`."""
    build_requests(root, pipeline)
    submit_batches(root, NAME)


def finish(root: Root) -> pa.Table:
    """Run `results` when all answers are there, and return the table.

    Raises:
        SystemExit: If answers are unavailable.
    """
    while True:
        poll(root, now=True)
        done = collect_results(root, NAME)
        if done.problems:
            sys.exit("\n".join(done.problems))
        if done.results is not None and done.results.final:
            return pq.read_table(Path(root.settings.root, NAME, "results", "results.parquet"))
        time.sleep(POLL_SECONDS)


def text_trial(path: Path, rows: list[Row], key: str | None, template: str) -> Trial:
    """A trial of a file that holds a table.

    Args:
        rows: The rows of the file.
        key: The row key; None counts rows.
        template: The prompt, as Jinja over the columns.
    """
    dataset: dict[str, Any] = {"path": str(path), "types": dict.fromkeys(instants(rows), "string")}
    if path.suffix != ".parquet":  # rows with invalid text are rejected, as those of Parquet are
        dataset["bad_rows"] = "reject"
    if key is None:
        rows = [{_ROW_NUMBER: number, **row} for number, row in enumerate(rows)]
    else:
        dataset["key"] = key
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, finalize=lambda value: "" if value is None else value
    )
    compiled = environment.from_string(template)

    def request(row: Row) -> dict[str, Any]:
        if any(isinstance(value, Broken) for value in row.values()):
            raise ValueError("invalid_unicode")
        text = compiled.render(row, row=row)
        if not text.strip():
            raise ValueError("empty_prompt")
        return params(text)

    return Trial(dataset, template, Expected(key or _ROW_NUMBER, rows, request))


def document_trial(pattern: str, kind: str) -> Trial:
    """A trial of documents, each sent as base64.

    Args:
        pattern: A file, a folder or a glob.
        kind: The type of the block that holds a document, `image` or `document`.
    """
    path = Path(pattern).resolve()
    base = path if path.is_dir() else next(parent for parent in path.parents if not has_magic(str(parent)))
    inner = "**/*" if path.is_dir() else str(path.relative_to(base))
    files = [path] if path.is_file() else base.glob(inner)
    rows = [
        {"path": file.relative_to(base).as_posix(), "name": file.name, "bytes": file.read_bytes()}
        for file in sorted(files, key=str)
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(base).parts)
    ]

    def request(row: Row) -> dict[str, Any]:
        media_type = mimetypes.guess_type(row["name"], strict=False)[0]
        if media_type not in _MEDIA_TYPES:
            raise ValueError("template_error")
        data = base64.b64encode(row["bytes"]).decode()
        source = {"type": "base64", "media_type": media_type, "data": data}
        return params([{"type": kind, "source": source}, {"type": "text", "text": row["name"]}])

    content = [{"type": kind, "source": _SOURCE}, {"type": "text", "text": "{{ name }}"}]
    return Trial({"files": str(path)}, content, Expected("path", rows, request))


def _chosen(options: argparse.Namespace) -> Trial:
    if options.image or options.document:
        return document_trial(options.file, "image" if options.image else "document")
    path = Path(options.file).resolve()
    return text_trial(path, read_rows(path), options.key, options.template or f"{{{{ {options.text} }}}}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fidelity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="CSV, TSV, JSON Lines or Parquet; or documents")
    parser.add_argument("--key", metavar="COLUMN", help="the row key; default: rows are counted")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--text", metavar="COLUMN", default="text", help="sent as it is; default: text")
    prompt.add_argument("--template", metavar="TEXT", help="sent instead, a Jinja template over the columns")
    prompt.add_argument("--image", action="store_true", help="FILE is images: a file, a folder or a glob")
    prompt.add_argument("--document", action="store_true", help="FILE is documents, such as PDF files")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder, Emulator() as emulator:
            findings = _chosen(options).run(emulator, Path(folder))
    except (BatchAssetsError, OSError, ValueError, jinja2.TemplateError) as error:
        sys.exit(str(error))
    findings.print()
    sys.exit(1 if findings.mismatches else 0)


if __name__ == "__main__":
    main()
