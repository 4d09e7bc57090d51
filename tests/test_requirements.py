"""The locked versions: they fit pyproject.toml, have hashes, agree with each other, and name no registry."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.documentation import PROJECT

FOLDER = PROJECT / "requirements"
NAMES = ("build", "demo", "dev", "runtime")
DEPLOYED = (
    *("aws", "azure", "celery", "duckdb", "gcs", "google-cloud", "k8s"),
    *("mysql", "postgres", "s3", "slack"),
)
# The extras of pyproject.toml that a file locks.
EXTRAS = {
    "demo": ("dashboard", "demo"),
    "dev": (*("all", "dashboard", "demo", "dev", "docs", "test", "testing"), *DEPLOYED),
    "runtime": DEPLOYED,
}
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))


def entries(name: str) -> list[str]:
    """The entries of a file, one line each."""
    text = (FOLDER / f"{name}.txt").read_text("utf-8")
    return text.replace("\\\n", " ").splitlines()


def locked(name: str) -> dict[str, set[str]]:
    """The versions by project name. There may be several, distinguished by markers."""
    versions: dict[str, set[str]] = {}
    for entry in entries(name):
        requirement = Requirement(entry.partition(" --hash")[0])
        (pin,) = requirement.specifier
        versions.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return versions


def declared(name: str) -> Iterator[Requirement]:
    """The versions that pyproject.toml allows for a file."""
    if name == "build":
        texts = PYPROJECT["build-system"]["requires"]
    else:
        extras = PYPROJECT["project"]["optional-dependencies"]
        texts = [
            *PYPROJECT["project"]["dependencies"],
            *(text for extra in EXTRAS[name] for text in extras[extra]),
        ]
    for text in texts:
        if (requirement := Requirement(text)).name != "batch-assets":
            yield requirement


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_is_one_version_with_hashes(name: str) -> None:
    for entry in entries(name):
        requirement, _, hashes = entry.partition(" --hash=")
        assert re.fullmatch(r"\S+==[\w.]+( ; .+)?", requirement.rstrip()), requirement
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", hashes.split()[0]), requirement


@pytest.mark.parametrize("name", NAMES)
def test_the_locked_versions_fit_pyproject(name: str) -> None:
    versions = locked(name)
    for requirement in declared(name):
        chosen = versions.get(canonicalize_name(requirement.name))
        assert chosen, f"{requirement} is not in requirements/{name}.txt: make lock UPGRADE="
        assert all(requirement.specifier.contains(version) for version in chosen), requirement


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dev"])
def test_no_file_has_another_version_than_the_tested_one(name: str) -> None:
    tested = locked("dev")
    assert {project: tested.get(project) for project in locked(name)} == locked(name)


def test_every_extra_is_locked() -> None:
    assert set(EXTRAS["dev"]) == set(PYPROJECT["project"]["optional-dependencies"])


def test_all_has_every_extra_for_runs() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    together = {extra for text in extras["all"] for extra in Requirement(text).extras}
    assert together == extras.keys() - {"all", "dev", "docs", "test", "testing"}
