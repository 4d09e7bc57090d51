"""Images and PDFs are sent with the type of their content, or their row is rejected before anything is sent."""

from __future__ import annotations

import base64
import io
from typing import Any

import orjson
import pytest

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.requests.row_renderer import RowRenderer, row_templates
from batch_assets.core.requests.submission import Rejects
from batch_assets.core.template.media_check import check_media
from batch_assets.core.template.media_formats import Media, read_media
from batch_assets.core.template.values import RowRejectedError
from batch_assets.emulator.media import media_problem
from batch_assets.emulator.params import check_params
from tests.media import PDF, gif, image, jpeg, png, source, webp

from ..support import World, params

FORMATS = {"image/png": png, "image/jpeg": jpeg, "image/gif": gif, "image/webp": webp}
HTML = b"<!DOCTYPE html><title>404</title>"
FIELD = "params.messages[0].content[0].source"


def document(content: bytes, media_type: str = "application/pdf") -> dict[str, Any]:
    return {"type": "document", "source": source(content, media_type)}


def messages(*blocks: Any) -> list[Any]:
    return [{"role": "user", "content": list(blocks)}]


def problem(*blocks: Any, model: str = "claude-haiku-5-5") -> str | None:
    """Why the check rejects a request; `None` if it accepts it."""
    try:
        check_media(orjson.dumps({"model": model, "messages": messages(*blocks)}))
    except RowRejectedError as error:
        assert error.error_type == "invalid_media"
        return error.message
    return None


@pytest.mark.parametrize("media_type", FORMATS)
def test_an_image_is_recognized_by_its_content_with_its_size_and_its_end(media_type: str) -> None:
    content = FORMATS[media_type](640, 480)
    assert read_media(content) == read_media(content + b"\0\0") == Media(media_type, 640, 480)
    assert problem(image(content, media_type)) is media_problem(messages(image(content, media_type))) is None
    for end in range(16, len(content) - 1):
        cut = read_media(content[:end])
        assert cut is not None and (cut.type, cut.is_whole) == (media_type, False)


@pytest.mark.parametrize("media_type", [*FORMATS, "application/pdf"])
@pytest.mark.parametrize(
    "behind", [b"junk", b";\n", b"\0" * 40 + b"x", b"\n" * 3000, b"\xff\xd9 more", b"x" * 1000]
)
def test_bytes_behind_the_end_are_no_fault(media_type: str, behind: bytes) -> None:
    """What the API does with them is not documented, so neither the check nor the emulator refuses them."""
    content = (FORMATS[media_type]() if media_type in FORMATS else PDF) + behind
    block = image(content, media_type) if media_type in FORMATS else document(content)
    assert problem(block) is media_problem(messages(block)) is None


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"save_all": True}),
    ],
)
def test_images_of_a_real_library_are_recognized(format_: str, options: dict[str, Any]) -> None:
    library = pytest.importorskip("PIL.Image")
    picture = library.effect_noise((301, 200), 60).convert("RGB")
    file = io.BytesIO()
    picture.save(file, format_, **options)
    content = file.getvalue()
    media_type = f"image/{format_.lower()}"
    assert read_media(content) == Media(media_type, 301, 200)
    assert problem(image(content, media_type)) is media_problem(messages(image(content, media_type))) is None
    half = image(content[: len(content) // 2], media_type)
    assert "was cut off" in str(problem(half))
    assert media_problem(messages(half)) == "Could not process image"


BASE64 = base64.b64encode(png() + bytes(-len(png()) % 3 + 1)).decode()  # with padding
AT = "messages.0.content.0.image.source.base64"
REFUSED: list[tuple[str, list[Any], str, str]] = [
    (
        "a PNG with the type of a JPEG",
        [image(png(), "image/jpeg")],
        "the content is a PNG image, but media_type is 'image/jpeg': write image/png, or give the filter",
        f"{AT}: The image was specified using the image/jpeg media type, but the image appears to be a image/png "
        "image",
    ),
    (
        "a web page",
        [image(HTML)],
        r"the content is neither a PNG, JPEG, GIF or WebP image nor a PDF: it starts with '<!DOCTYPE html><'",
        "Could not process image",
    ),
    ("a bitmap", [image(b"BM\0\0")], r"it starts with 'BM\x00\x00'", "Could not process image"),
    ("nothing", [image(b"")], "it starts with nothing", "Could not process image"),
    ("a JPEG that is cut off", [image(jpeg()[:-9], "image/jpeg")], "was cut off", "Could not process image"),
    (
        "only a signature",
        [image(png()[:8])],
        "is a PNG image without its end: it was cut off",
        "Could not process image",
    ),
    ("no pixels", [image(png(0, 5))], "is a PNG image without pixels", "Could not process image"),
    (
        "9,000 pixels",
        [image(png(9000, 10))],
        "the content has 9,000 x 10 pixels; the API accepts 8,000 a side: make it smaller",
        f"{AT}.data: At least one of the image dimensions exceed max allowed size: 8000 pixels",
    ),
    (
        "9,000 pixels of a JPEG",
        [image(jpeg(10, 9000), "image/jpeg")],
        "10 x 9,000 pixels",
        f"{AT}.data: At least one of the image dimensions exceed max allowed size: 8000 pixels",
    ),
    (
        "many images",
        [image(png(2001, 1))] * 21,
        "the API accepts 2,000 a side in a request with more than 20 images: make it smaller",
        f"{AT}.data: At least one of the image dimensions exceed max allowed size for many-image requests: "
        "2000 pixels",
    ),
    (
        "11 MB",
        [image(png() + bytes(8 << 20))],
        "11,184,904 bytes as Base64; the API accepts 10,485,760 for an image: make it smaller",
        f"{AT}: image exceeds 10 MB maximum: 11184904 bytes > 10485760 bytes",
    ),
    (
        "a PDF in an image",
        [image(PDF, "image/png")],
        "the content is a PDF, which belongs in a block of the type document, not image",
        "Could not process image",
    ),
    (
        "an image in a document",
        [document(png())],
        "the content is a PNG image, which belongs in a block of the type image, not document",
        "messages.0.content.0.pdf.source.base64.data: The PDF specified was not valid.",
    ),
    (
        "a PDF that is cut off",
        [document(PDF[:20])],
        "the content is a PDF without its end: it was cut off",
        "messages.0.content.0.pdf.source.base64.data: The PDF specified was not valid.",
    ),
    (
        "a data URL",
        [{"type": "image", "source": source(png(), "image/png") | {"data": "data:image/png;base64,iVBORw0KGgo="}}],
        "`data` starts with 'data:': give the Base64 alone, the part after the comma",
        f"{AT}.data: Invalid base64 data",
    ),
    (
        "no Base64",
        [{"type": "image", "source": source(png(), "image/png") | {"data": "abcde"}}],
        "`data` is not Base64",
        f"{AT}.data: Invalid base64 data",
    ),
    *(
        (
            name,
            [{"type": "image", "source": source(png(), "image/png") | {"data": data}}],
            f"`data` is not Base64: {text}",
            f"{AT}.data: Invalid base64 data",
        )
        for name, data, text in (
            ("lines", BASE64[:76] + "\n" + BASE64[76:], "it has line breaks or spaces. Remove them"),
            ("a space at the end", BASE64 + " ", "it has line breaks or spaces"),
            ("a byte order mark", "\ufeff" + BASE64, r"it has the character '\ufeff' at position 0. Encode"),
            (
                "garbage",
                BASE64[:8] + "!" + BASE64[8:],
                "it has the character '!' at position 8. Encode the content",
            ),
            ("quotes", f'"{BASE64}"', "it has the character '\"' at position 0"),
            (
                "the alphabet for URLs",
                BASE64[:-8] + "-_" + BASE64[-6:],
                "it is in the alphabet for URLs. Write + in",
            ),
            (
                "no padding",
                BASE64.rstrip("="),
                "it has 94 characters, but the number must be a multiple of 4. Add the = at",
            ),
            (
                "padding of a whole",
                base64.b64encode(png()[:36]).decode() + "=",
                "it has more = at its end than belong",
            ),
            (
                "four of them",
                base64.b64encode(png()[:36]).decode() + "====",
                "it has more = at its end than belong",
            ),
            ("one too many", BASE64 + "=", "it has more = at its end than belong there. Remove them"),
            ("two in one", BASE64 + BASE64, "Excess data after padding. Encode the content again"),
            ("a long one", base64.b64encode(bytes(3000)).decode()[:-1], "it has 3,999 characters, but the number"),
        )
    ),
    (
        "an image in the result of a tool",
        [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}, image(HTML)]}],
        "params.messages[0].content[0].content[1].source: the content is neither",
        "Could not process image",
    ),
]


@pytest.mark.parametrize(
    ("blocks", "rejected", "refused"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_what_the_api_refuses_is_rejected_here_and_refused_by_the_emulator(
    blocks: list[Any], rejected: str, refused: str
) -> None:
    assert rejected in str(problem(*blocks))
    assert media_problem(messages(*blocks)) == refused


def by_name(kind: str, name: Any, block: str = "image") -> dict[str, Any]:
    return {"type": block, "source": {"type": kind, "file_id" if kind == "file" else kind: name}}


EMPTY = [
    by_name("url", ""),
    by_name("url", " "),
    by_name("url", None, "document"),
    by_name("url", "", "document"),
    by_name("file", ""),
    {"type": "tool_result", "tool_use_id": "t", "content": [by_name("url", "")]},
]


@pytest.mark.parametrize("block", EMPTY)
def test_a_source_that_names_nothing_is_rejected_here_and_refused_by_the_emulator(block: dict[str, Any]) -> None:
    assert "` is empty: give it a value, or leave the row out" in str(problem(block))
    assert "String should have at least 1 character" in str(media_problem(messages(block)))


@pytest.mark.parametrize(
    ("model", "most"), [("claude-haiku-5-5", 600), ("claude-haiku-4-5", 100), ("claude-opus-4-5-20251101", 100)]
)
@pytest.mark.parametrize(
    "block", [image(png()), by_name("url", "https://example.org/a.png"), by_name("file", "f")]
)
def test_more_images_than_the_model_takes(model: str, most: int, block: dict[str, Any]) -> None:
    def refused(count: int) -> str | None:
        body = {"model": model, "max_tokens": 9, "messages": messages(*[block] * count)}
        refusal = check_params(body)
        return refusal.message if refusal is not None else None

    assert problem(*[block] * most, model=model) is refused(most) is None
    assert f"{most + 1} images; the API accepts {most} in" in str(problem(*[block] * (most + 1), model=model))
    assert refused(most + 1) == f"Too much media: 0 document pages + {most + 1} images > {most}"


def test_a_row_without_a_url_is_rejected_before_it_is_sent(world: World) -> None:
    (world.folder / "rows.jsonl").write_bytes(b'{"id":1,"url":"https://example.org/a.png"}\n{"id":2,"url":""}')
    block = {"type": "image", "source": {"type": "url", "url": "{{ url }}"}}
    pipeline = world.pipeline(dataset={"path": "rows.jsonl", "key": "id"}, params=params([block]))
    table = world.run(pipeline).set_index("id")
    assert table["error_type"].dropna().to_dict() == {2: "invalid_media"}
    assert table["error_message"][2].startswith(f"{FIELD}: `url` is empty")


LONG_TEXT = {"type": "text", "media_type": "text/plain", "data": 'a "quote"' * 500}
CALL = {"type": "tool_use", "id": "t", "name": "n", "input": {"source": {"type": "base64", "data": "x" * 2000}}}


@pytest.mark.parametrize(
    "blocks",
    [
        [image(png(8000, 8000))],
        [image(png(2000, 2000))] * 21,
        [image(png(8000, 1))] * 20,
        [document(PDF + b"\0" * 3000)],
        [document(b"junk\n" + PDF)],
        [{"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}],
        [{"type": "text", "text": '{"type":"base64","data":"' + "A" * 2000 + '"}'}],
        [CALL],
        [{"type": "document", "source": LONG_TEXT}, image(png())],
    ],
)
def test_what_the_api_accepts_is_accepted(blocks: list[Any]) -> None:
    assert problem(*blocks) is None
    assert media_problem(messages(*blocks)) is None


SOURCE = {"type": "base64", "media_type": "{{ path | media_type }}", "data": "{{ path | file_base64 }}"}


def test_rows_get_the_type_of_the_content_or_are_rejected_with_file_and_remedy(world: World) -> None:
    """A folder of files with wrong endings and contents."""
    docs = world.folder / "docs"
    docs.mkdir()
    files = {
        "a.jpg": png(),
        "b.jfif": jpeg(),
        "c.png": HTML,
        "d.jpg": jpeg()[:-9],
        "e.png": png(9000, 1),
        "f.png": png() + bytes(5000),
        "g.svg": b"<svg/>",
        "h.png": png(),
    }
    for name, content in files.items():
        (docs / name).write_bytes(content)
    dataset = {"files": "docs", "max_file_mb": 0.005}
    body = params([{"type": "image", "source": SOURCE}])
    table = world.run(world.pipeline(dataset=dataset, params=body)).set_index("path")
    assert dict(table["error_type"].dropna()) == {
        "c.png": "template_error",
        "d.jpg": "invalid_media",
        "e.png": "invalid_media",
        "f.png": "request_too_large",
        "g.svg": "template_error",
    }
    reasons = table["error_message"]
    assert (
        "'c.png' is neither a PNG, JPEG, GIF or WebP image nor a PDF: it starts with '<!DOCTYPE"
        in reasons["c.png"]
    )
    assert f"{FIELD}: the file 'd.jpg' is a JPEG image without its end" in reasons["d.jpg"]
    assert f"{FIELD}: the file 'e.png' has 9,000 x 1 pixels" in reasons["e.png"]
    assert (
        "the file 'f.png' has 5,0" in reasons["f.png"] and "dataset.max_file_mb allows 5,000" in reasons["f.png"]
    )
    (batch,) = world.accepted()
    sources = [
        request["params"]["messages"][0]["content"][0]["source"]
        for request in orjson.loads(world.sent_body(batch["id"]))["requests"]
    ]
    sent = {base64.b64decode(source["data"]): source["media_type"] for source in sources}
    assert sent == {png(): "image/png", jpeg(): "image/jpeg"}


def test_bytes_and_files_that_other_rows_name(world: World) -> None:
    """Images of a path beside the rows, with a constant media type, and of a constant path."""
    (world.folder / "a.png").write_bytes(png())
    (world.folder / "b.png").write_bytes(jpeg())
    (world.folder / "rows.jsonl").write_bytes(b'{"id":1,"path":"a.png"}\n{"id":2,"path":"b.png"}')
    fixed = {"type": "base64", "media_type": "image/png", "data": "{{ path | file_base64 }}"}
    constant = {
        "type": "base64",
        "media_type": "{{ 'b.png' | media_type }}",
        "data": "{{ 'b.png' | file_base64 }}",
    }
    body = params([{"type": "image", "source": fixed}, {"type": "image", "source": constant}])
    pipeline = world.pipeline(dataset={"path": "rows.jsonl", "key": "id"}, params=body)
    report = world.build(pipeline)
    assert (report.requests, report.rejected) == (1, 1)
    table = world.run(pipeline).set_index("id")
    assert "the file 'b.png' is a JPEG image, but media_type is 'image/png'" in table["error_message"][2]


def test_a_hook_may_repair_what_a_row_has(world: World) -> None:
    """The params that are sent are checked, not those that the template makes."""
    from batch_assets.core.pipeline.load import load_pipeline
    from batch_assets.core.pipeline.pipeline import Hooks

    (world.folder / "rows.jsonl").write_bytes(
        orjson.dumps({"id": 1, "block": image(HTML)}) + b"\n" + orjson.dumps({"id": 2, "block": image(png())})
    )

    def swap(_: Any, row: Any, sent: Any) -> Any:
        sent["messages"][0]["content"] = [image(png() if row["id"] == 1 else HTML)]
        return sent

    attributes = {
        "name": "p",
        "dataset": {"path": "rows.jsonl", "key": "id"},
        "params": params(["{{ block }}"]),
    }
    pipeline = load_pipeline(attributes, folder=world.folder, hooks=Hooks(render_request=swap))
    report = world.build(pipeline)
    assert (report.requests, report.rejected) == (1, 1)
    table = world.run(pipeline).set_index("id")
    assert table["result_type"].to_dict() == {1: "succeeded", 2: "rejected"}


def test_a_request_that_is_answered_keeps_its_row(world: World) -> None:
    """Nothing is sent for it, so a check that a later version adds takes no answer away."""
    (world.folder / "rows.jsonl").write_bytes(orjson.dumps({"id": 1, "block": image(HTML)}))
    pipeline = world.pipeline(dataset={"path": "rows.jsonl", "key": "id"}, params=params(["{{ block }}"]))

    def rendered(is_kept: bool) -> tuple[int, Rejects]:
        with Dataset(pipeline) as dataset:
            templates, rejects = row_templates(pipeline, dataset), Rejects()
            renderer = RowRenderer(pipeline, dataset, templates, is_kept=lambda _: is_kept)
            names = list(dict.fromkeys([dataset.key, *renderer.reads]))
            return sum(len([*renderer.render(rows, rejects)]) for rows in dataset.rows(names)), rejects

    assert rendered(is_kept=True) == (1, {})
    requests, rejects = rendered(is_kept=False)
    assert (requests, rejects[0][0]) == (0, "invalid_media")
