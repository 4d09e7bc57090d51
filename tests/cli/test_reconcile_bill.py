"""`batch-assets reconcile-bill`: compares the bill with the table, and keeps the admin key to itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anthropic

from batch_assets.emulator import Emulator

from .support import Project

ADMIN = "sk-ant-admin-of-this-test"


def test_the_bill_is_compared_and_the_admin_key_is_nowhere(project: Project, tmp_path: Path) -> None:
    project.add_pipeline("asked", ["one", "two"])
    with Emulator(
        state=tmp_path / "state", workspaces={"key-of-north": "north"}, admin_keys=[ADMIN], keys=["key-of-ours"]
    ) as api:
        env = {"BATCH_ASSETS_EMULATOR": "", "ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": "key-of-ours"}
        assert project.run("run", "asked", env=env).returncode == 0
        with_key = {**env, "ANTHROPIC_ADMIN_KEY": ADMIN}
        equal = project.run("reconcile-bill", "--workspace", "wrkspc_default", env=with_key)
        assert (equal.returncode, equal.stderr) == (0, "")
        assert "no day differs" in equal.stdout and "7 days: billed less than $0.0001" in equal.stdout
        params = {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
        asked: Any = {"custom_id": "x", "params": params}
        with anthropic.Anthropic(api_key="key-of-north", base_url=api.url) as client:
            client.messages.batches.create(requests=[asked])
        more = project.run("reconcile-bill", "--days", "2", env=with_key)
        assert (more.returncode, more.stderr) == (1, "")
        assert "more: batches of other roots or programs" in more.stdout and "1 day differs" in more.stdout
        refused = project.run("reconcile-bill", env={**env, "ANTHROPIC_ADMIN_KEY": "key-of-ours"})
        assert refused.returncode == 1 and "does not report its costs: HTTP 403" in refused.stderr
        assert "key-of-ours" not in refused.stdout + refused.stderr
    shown = "".join(each.stdout + each.stderr for each in (equal, more))
    assert ADMIN not in shown
    places = [path for path in project.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert places and not [path for path in places if ADMIN.encode() in path.read_bytes()]
