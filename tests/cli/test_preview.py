"""`batch-assets preview`: the requests of some rows as the API would get them, with nothing sent or registered."""

from __future__ import annotations

import base64
import json
import urllib.request

from tests.media import png

from .support import Project


def _requests(stdout: str) -> list[dict[str, object]]:
    """The params that a preview printed."""
    decoder = json.JSONDecoder()
    starts = [at for at, character in enumerate(stdout) if stdout.startswith("\n{", at - 1) and character == "{"]
    return [decoder.raw_decode(stdout, at)[0] for at in starts]


def test_the_first_rows_are_shown_as_they_would_be_sent(project: Project) -> None:
    project.add_pipeline("asked", ["one", "two \u202e", "", "three", "four"], betas=["files-api-2025-04-14"])
    calls = project.emulator.requests() if project.emulator is not None else {}
    shown = project.run("preview", "asked")
    assert shown.returncode == 0, shown.stderr
    content = [{"type": "text", "text": "one"}]
    expected = {
        "model": "claude-haiku-5-5",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": content}],
    }
    first, second = _requests(shown.stdout)
    assert first == expected
    assert second["messages"] == [{"role": "user", "content": [{"type": "text", "text": "two \u202e"}]}]
    assert "\u202e" not in shown.stdout
    assert "anthropic-beta: files-api-2025-04-14" in shown.stdout
    assert "row 2: rejected, so it is not sent: " in shown.stdout
    assert shown.stdout.count("as the API counts them") == 2
    assert shown.stdout.count("  cost: less than $0.0001") + shown.stdout.count("  cost: $0") == 2
    assert not (project.folder / "data").exists()
    assert project.accepted() == []
    assert project.emulator is not None
    after = project.emulator.requests()
    assert {call for call in after if after[call] != calls.get(call, 0)} == {"POST /v1/messages/count_tokens"}
    # It is what a run sends.
    assert project.run("run", "asked").returncode == 3
    batch = f"{project.emulator.url}/_emulator/batches/{project.accepted()[0]['id']}/requests"
    with urllib.request.urlopen(batch) as lines:
        sent = [json.loads(line)["params"] for line in lines]
    assert sent[:2] == [first, second]


def test_a_row_is_shown_by_its_key_without_an_api(bare_project: Project) -> None:
    bare_project.add_pipeline("asked", ["one", "two", "three", "four", ""])
    shown = bare_project.run("preview", "asked", "--row", "3")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("row 3\n{")
    assert '"text": "four"' in shown.stdout and "three" not in shown.stdout
    assert "by its characters\n" in shown.stdout
    rejected = bare_project.run("preview", "asked", "--row", "4")
    assert rejected.stdout.startswith("row 4: rejected, so it is not sent: "), rejected.stderr
    missing = bare_project.run("preview", "asked", "--row", "9")
    assert missing.returncode == 1
    assert missing.stderr.endswith("dataset.key: no row has the key '9'; its first keys: 0, 1, 2\n")
    assert not (bare_project.folder / "data").exists()
    (bare_project.folder / "asked.jsonl").write_text(json.dumps({"id": "k" * 5000, "text": "one"}))
    long = bare_project.run("preview", "asked", "--row", "x" * 5000)
    assert long.stderr.endswith(f"no row has the key '{'x' * 58}…; its first keys: {'k' * 59}…\n")


def test_why_the_api_could_not_count_is_shown(project: Project) -> None:
    project.add_pipeline("asked", ["one", "two"])
    project.env["BATCH_ASSETS_EMULATOR"] = "http://127.0.0.1:9"
    shown = project.run("preview", "asked")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("by its characters; the API could not count them: ") == 1
    assert shown.stdout.count("by its characters") == 2


def test_images_are_shown_in_part(project: Project) -> None:
    (project.folder / "photos").mkdir()
    (project.folder / "photos" / "a.png").write_bytes(png(60, 60))
    (project.folder / "photos" / "b.png").write_bytes(b"no image")
    image = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "{{ path | file_base64 }}"},
    }
    params = {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": [image]}]}
    project.add_pipeline("seen", [], dataset={"files": "photos/*.png"}, params=params)
    shown = project.run("preview", "seen")
    assert shown.returncode == 0, shown.stderr
    encoded = base64.b64encode(png(60, 60)).decode()
    assert f'"data": "{encoded[:40]}… and {len(encoded) - 40} more characters"' in shown.stdout
    assert encoded not in shown.stdout
    assert "row b.png: rejected, so it is not sent: invalid_media" in shown.stdout


def test_erased_rows_stay_hidden(project: Project) -> None:
    project.add_pipeline("asked", ["a secret", "two"])
    assert project.run("run", "asked").returncode == 0
    assert project.run("erase", "asked", "--key", "0").returncode == 0
    shown = project.run("preview", "asked")
    assert shown.stdout.startswith("row 0: rejected, so it is not sent: erased: the row was erased"), shown.stderr
    assert "secret" not in shown.stdout
    assert '"text": "two"' in shown.stdout
    assert len(project.accepted()) == 1


def test_rows_without_a_key_are_named_by_their_numbers(bare_project: Project) -> None:
    bare_project.add_pipeline("asked", ["one", "two"], dataset={"path": "asked.jsonl"})
    shown = bare_project.run("preview", "asked", "--row", "1")
    assert shown.stdout.startswith("row 1\n") and '"text": "two"' in shown.stdout, shown.stderr
