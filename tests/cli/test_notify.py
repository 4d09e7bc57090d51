"""Notices about a pipeline that no sensor watches."""

from __future__ import annotations

from tests.receivers import receiver

from .support import Project


def test_run_sends_notices_at_its_end(project: Project) -> None:
    webhook = {"url_env": "HOOK_URL", "secret_env": "HOOK_SECRET"}
    project.add_pipeline("asked", ["one", "two"], notify=[{"webhook": webhook}])
    with receiver() as hook:
        env = {"HOOK_URL": hook.url, "HOOK_SECRET": "any"}
        hook.answers = [(503, b"")]
        first = project.run("run", "asked", env=env)
        assert (first.returncode, first.stderr) == (0, "")
        waiting = "asked: the notice `complete` to webhook HOOK_URL waits: HTTP 503, next try in 60 s"
        assert waiting in first.stdout
        again = project.run("run", "asked", env=env)
        assert (again.returncode, again.stderr) == (0, "")
    # The second run's submission replaced the first one, and has a notice of its own.
    assert [(message.json["event"], message.json["counts"]) for message in hook.received] == [
        ("complete", {"succeeded": 2})
    ] * 2
    assert len({message.json["submission"] for message in hook.received}) == 2
