"""A root and its ledger know each other, and every other pair is refused before anything is sent."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from batch_assets.core.errors import PairingError, SettingsError
from batch_assets.core.io.storage import Storage
from batch_assets.core.open_root import open_root
from batch_assets.core.recovery.move import move, plan_move
from batch_assets.core.recovery.rebuild import has_ledger
from batch_assets.core.recovery.root_file import location_of
from batch_assets.core.remedies import PairRoot
from batch_assets.core.settings import Overrides, Settings

from ..support import World, environment, texts

NewWorld = Callable[..., World]


def answered(new_world: NewWorld, ledger: str | None = None) -> World:
    """A root with four answered rows, closed."""
    world = new_world(ledger=ledger)
    world.run(world.pipeline(texts(4)))
    world.root.close()
    return world


def settings(world: World, root: Path, ledger: str | None) -> Settings:
    return Settings.from_env(environment(world.emulator.url, root, ledger))


def refusal(world: World, root: Path, ledger: str | None) -> str:
    """The text with which opening is refused. Nothing may be written."""
    other = World(world.emulator, world.folder, open_root(settings(world, root, ledger)))
    before = sorted(root.rglob("*")) if root.exists() else []
    with pytest.raises(PairingError) as refused:
        other.build(other.pipeline())
    with pytest.raises(PairingError):  # a look is refused as well
        other.root.ledger.close()
    assert (sorted(root.rglob("*")) if root.exists() else []) == before
    assert refused.value.remedy == PairRoot()
    return str(refused.value)


def pairing(url: str) -> tuple[str, str]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        (row,) = database.execute("select ledger_id, root_id from pairing").fetchall()
    return row[0], row[1]


def root_file(root: Path) -> dict[str, str]:
    document: dict[str, str] = json.loads((root / "root.json").read_bytes())
    return document


def test_a_root_and_its_ledger_store_the_ids_of_each_other(new_world: NewWorld) -> None:
    world = answered(new_world)
    root = world.path()
    ledger_id, root_id = pairing(world.root.settings.ledger_url)
    assert root_file(root) == {"id": root_id, "ledger": ledger_id, "ledger_location": "ledger.db"}
    assert ledger_id != root_id
    world.reopened()
    assert world.root.mark == root_id[:6]
    assert pairing(world.root.settings.ledger_url) == (ledger_id, root_id)


@pytest.mark.parametrize("mounted", ["an empty folder", "no folder"])
def test_a_volume_that_is_not_mounted_is_refused(new_world: NewWorld, ledger_url: str, mounted: str) -> None:
    world = answered(new_world, ledger_url)
    root = world.path()
    root.rename(root.with_name("volume"))
    if mounted == "an empty folder":
        root.mkdir()
    text = refusal(world, root, ledger_url)
    assert str(root) in text
    assert "volume mounted" in text
    shutil.rmtree(root, ignore_errors=True)
    root.with_name("volume").rename(root)
    world.reopened()
    world.build(world.pipeline())
    assert len(world.accepted()) == 1


def test_a_shell_without_the_ledger_of_its_root_is_refused(new_world: NewWorld, ledger_url: str) -> None:
    world = answered(new_world, ledger_url)
    assert has_ledger(settings(world, world.path(), None))
    text = refusal(world, world.path(), None)
    assert str(world.path("ledger.db")) in text
    assert "a ledger.db" in text or "postgresql" in text
    assert "Set the ledger to the root's own" in text
    assert not world.path("ledger.db").exists()


def test_a_shell_without_the_ledger_is_refused_before_the_first_submission(
    new_world: NewWorld, ledger_url: str
) -> None:
    world = new_world(ledger=ledger_url)
    world.root.ledger.close()
    refusal(world, world.path(), None)


def test_a_second_root_for_a_ledger_is_refused(new_world: NewWorld, ledger_url: str) -> None:
    world = answered(new_world, ledger_url)
    other = new_world(name="other")
    other.run(other.pipeline(texts(2)))
    other.root.close()
    text = refusal(world, other.path(), ledger_url)
    assert str(world.path()) in text
    assert str(other.path()) in text
    assert "two databases or schemas" in text


def test_another_path_and_another_url_are_no_reason_to_refuse(new_world: NewWorld, tmp_path: Path) -> None:
    world = answered(new_world, f"sqlite:///{tmp_path}/ledger.db")
    root = world.path()
    root.rename(tmp_path / "mounted elsewhere")
    (tmp_path / "ledger.db").rename(tmp_path / "failed over.db")
    moved = settings(world, tmp_path / "mounted elsewhere", f"sqlite:///{tmp_path}/failed over.db")
    other = World(world.emulator, world.folder, open_root(moved))
    other.build(other.pipeline())
    assert len(world.accepted()) == 1
    other.root.close()


@pytest.mark.parametrize("at_root", [True, False])
def test_a_pair_from_before_ids_is_paired_at_its_first_opening(new_world: NewWorld, at_root: bool) -> None:
    """A process may also have been killed between the two halves of the pairing."""
    world = answered(new_world)
    world.path("root.json").unlink()
    if at_root:
        forget_pairing(world)
    world.reopened()
    world.build(world.pipeline())
    ledger_id, root_id = pairing(world.root.settings.ledger_url)
    assert (root_file(world.path())["ledger"], root_file(world.path())["id"]) == (ledger_id, root_id)
    assert len(world.accepted()) == 1


def forget_pairing(world: World) -> None:
    with closing(sqlite3.connect(world.root.settings.ledger_url.removeprefix("sqlite:///"))) as database:
        database.execute("delete from pairing")
        database.commit()


@pytest.mark.parametrize("there", ["nothing", "other submissions"])
def test_a_pair_from_before_ids_whose_submissions_differ_is_refused(
    new_world: NewWorld, tmp_path: Path, there: str
) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    world = answered(new_world, ledger)
    forget_pairing(world)
    other = new_world(name="other")
    if there == "other submissions":
        other.run(other.pipeline(texts(2)))
        other.path("root.json").unlink()
        other.path("ledger.db").unlink()
    other.root.close()
    text = refusal(world, other.path(), ledger)
    assert "0 of them are the same" in text
    assert str(other.path()) in text
    assert str(tmp_path / "ledger.db") in text


@pytest.mark.parametrize("kept", ["root.json", "root.json and responses"])
def test_a_root_that_has_lost_its_files_is_refused(new_world: NewWorld, tmp_path: Path, kept: str) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    world = answered(new_world, ledger)
    shutil.rmtree(world.path("asked", "requests"))
    if kept == "root.json":
        shutil.rmtree(world.path("asked"))
    text = refusal(world, world.path(), ledger)
    assert "has lost its files" in text
    assert str(tmp_path / "ledger.db") in text
    assert "Restore" in text


def test_a_lost_file_and_cleared_away_old_submissions_are_no_reason_to_refuse(new_world: NewWorld) -> None:
    world = new_world()
    for number in range(8):
        world.run(world.pipeline(texts(number + 1)))
    folders = sorted(world.path("asked", "requests").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for folder in folders[:6]:
        shutil.rmtree(folder)
    for response in world.path("asked", "responses").iterdir():
        response.unlink()
    world.reopened()
    pipeline = world.pipeline()
    assert world.build(pipeline).written == 0
    done = world.collect(pipeline)  # the API has all answers, and their custom_ids name the requests
    assert done.results is not None and dict(done.results.counts) == {"succeeded": 8}


def test_a_lost_ledger_is_rebuilt_beside_its_root_wherever_that_is(new_world: NewWorld, tmp_path: Path) -> None:
    world = answered(new_world)
    before = root_file(world.path())
    world.path().rename(tmp_path / "moved")
    (tmp_path / "moved" / "ledger.db").unlink()
    other = World(world.emulator, world.folder, open_root(settings(world, tmp_path / "moved", None)))
    other.build(other.pipeline())
    assert len(world.accepted()) == 1
    after = root_file(tmp_path / "moved")
    assert after["id"] == before["id"]
    assert after["ledger"] != before["ledger"]
    other.root.close()


def test_a_process_killed_before_root_json_names_the_rebuilt_ledger_does_no_harm(new_world: NewWorld) -> None:
    world = answered(new_world)
    before = world.path("root.json").read_bytes()
    world.path("ledger.db").unlink()
    world.reopened().ledger.close()
    world.root.close()
    world.path("root.json").write_bytes(before)
    world.reopened()
    world.build(world.pipeline())
    assert root_file(world.path())["ledger"] == pairing(world.root.settings.ledger_url)[0]


def test_move_pairs_a_root_with_a_new_ledger_and_the_old_one_is_refused(
    new_world: NewWorld, tmp_path: Path
) -> None:
    world = answered(new_world)
    new = settings(world, world.path(), f"sqlite:///{tmp_path}/new.db")
    plan = plan_move(new)
    assert not plan.is_done
    assert any(str(world.path("ledger.db")) in line for line in plan.lines)
    assert not (tmp_path / "new.db").exists()
    move(new)
    other = World(world.emulator, world.folder, open_root(new))
    other.build(other.pipeline())
    assert len(world.accepted()) == 1
    other.root.close()
    assert plan_move(new).is_done
    assert "new.db" in refusal(world, world.path(), None)


def test_move_accepts_that_files_are_gone_for_good(new_world: NewWorld, tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    world = answered(new_world, ledger)
    shutil.rmtree(world.path("asked"))
    plan = plan_move(world.root.settings)
    assert any("paid for again" in warning for warning in plan.warnings)
    move(world.root.settings)
    world.reopened()
    world.run(world.pipeline())
    assert len(world.accepted()) == 2
    world.reopened().ledger.close()


def test_move_pairs_a_root_and_a_ledger_of_others(new_world: NewWorld, tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    world = answered(new_world, ledger)
    document = root_file(world.path())
    world.path("root.json").write_text(json.dumps(document | {"id": "x" * 26, "ledger": "y" * 26}))
    refusal(world, world.path(), ledger)
    move(world.root.settings)
    world.reopened()
    world.build(world.pipeline())
    assert len(world.accepted()) == 1
    assert world.root.mark == "x" * 6


@pytest.mark.parametrize(("content", "by_move"), [('{"id": "', False), ('{"id": 1}', True)])
def test_a_damaged_root_json_is_written_again_from_the_ledger(
    new_world: NewWorld, content: str, by_move: bool, caplog: pytest.LogCaptureFixture
) -> None:
    world = answered(new_world)
    before = root_file(world.path())
    world.path("root.json").write_text(content)
    if by_move:
        assert any("root.json is damaged" in line for line in plan_move(world.root.settings).lines)
        move(world.root.settings)
    world.reopened().ledger.close()
    assert root_file(world.path())["id"] == before["id"]
    assert by_move or root_file(world.path()) == before
    assert world.path("root.json.damaged").read_text() == content
    assert "root.json is damaged" in caplog.text


def test_a_damaged_root_json_is_named_where_the_ledger_may_be_another(new_world: NewWorld, tmp_path: Path) -> None:
    """Neither a new ledger nor that of another root replaces what the damaged file recorded."""
    world, other_ledger = answered(new_world), f"sqlite:///{tmp_path}/other.db"
    other = World(world.emulator, world.folder, open_root(settings(world, tmp_path / "other", other_ledger)))
    other.build(other.pipeline())
    other.root.close()
    world.path("root.json").write_text("{")
    for ledger in (f"sqlite:///{tmp_path}/new.db", other_ledger):
        assert "root.json is damaged" in refusal(world, world.path(), ledger)
    assert not (tmp_path / "new.db").exists()
    assert world.path("root.json").read_text() == "{"
    move(settings(world, world.path(), None))
    world.reopened().ledger.close()


def test_root_json_shows_no_password(tmp_path: Path) -> None:
    url = "postgresql+psycopg2://user:pass-word@host/name?password=pass-word"
    assert location_of(url, Storage(str(tmp_path))) == "postgresql+psycopg2://host/name"
    url = "postgresql+psycopg2://user@host/name?options=-csearch_path%3Dstaging"
    assert location_of(url, Storage(str(tmp_path))).endswith("search_path%3Dstaging")


def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "inner").mkdir(parents=True)
    (folder / "workspace.yaml").touch()
    return folder


def test_a_relative_root_and_ledger_are_those_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(tmp_path)
    monkeypatch.chdir(folder / "inner")
    env = {"BATCH_ASSETS_ROOT": "data/out"}
    assert Settings.from_env(env).root == str(folder / "data" / "out")
    assert Settings.from_env(env).ledger_url == f"sqlite:///{folder}/data/out/ledger.db"
    env |= {"BATCH_ASSETS_LEDGER": "sqlite:///ledgers/one.db"}
    assert Settings.from_env(env).ledger_url == f"sqlite:///{folder}/ledgers/one.db"
    given = Settings.from_env({}, overrides=Overrides(root="eu", ledger="sqlite:///eu.db"))
    assert (given.root, given.ledger_url) == (str(folder / "eu"), f"sqlite:///{folder}/eu.db")
    absolute = {"BATCH_ASSETS_ROOT": str(tmp_path), "BATCH_ASSETS_LEDGER": f"sqlite:///{tmp_path}/x.db"}
    assert Settings.from_env(absolute).ledger_url == absolute["BATCH_ASSETS_LEDGER"]


@pytest.mark.parametrize("inside", ["ledger.db", "root.json", "asked/requests/s/manifest.json"])
def test_a_root_in_the_current_folder_is_named_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    folder = project(tmp_path)
    monkeypatch.chdir(folder / "inner")
    old = folder / "inner" / "out" / inside
    old.parent.mkdir(parents=True)
    old.touch()
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"BATCH_ASSETS_ROOT": "out"})
    assert str(folder / "out") in str(refused.value)
    assert str(folder / "inner" / "out") in str(refused.value)
    with pytest.raises(SettingsError, match="root is out"):
        Settings.from_env({}, overrides=Overrides(root="out"))
    monkeypatch.chdir(folder)
    assert Settings.from_env({"BATCH_ASSETS_ROOT": "out"}).root == str(folder / "out")


def test_a_ledger_in_the_current_folder_is_named_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(tmp_path)
    monkeypatch.chdir(folder / "inner")
    (folder / "inner" / "one.db").touch()
    with pytest.raises(SettingsError, match=r"BATCH_ASSETS_LEDGER is one\.db"):
        Settings.from_env({"BATCH_ASSETS_LEDGER": "sqlite:///one.db"})
