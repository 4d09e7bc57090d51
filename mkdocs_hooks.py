"""Copies the top-level pages into the documentation site, under project/, and adjusts the links to them.

In the repository these pages are outside docs/, where MkDocs does not look. Links are written for readers there.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_NAMES = ("README", "CHANGELOG", "CONTRIBUTING", "RELEASING", "SECURITY")
_FOLDER = "project"
_TO_DOCS = re.compile(r"(\]\(|^\[[^\]]+\]: )docs/", re.M)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the top-level pages to the files of the site."""
    top = Path(config.config_file_path).parent
    for name in _NAMES:
        content = (top / f"{name}.md").read_text("utf-8")
        files.append(File.generated(config, f"{_FOLDER}/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adjusts the links between the top-level pages and those in docs/."""
    path = page.file.src_uri
    if path.startswith(f"{_FOLDER}/"):
        return _TO_DOCS.sub(r"\1../", markdown)
    to_docs = "../" * path.count("/")
    to_top = re.compile(rf"(\]\(){re.escape(to_docs)}\.\./((?:{'|'.join(_NAMES)})\.md)")
    return to_top.sub(rf"\1{to_docs}{_FOLDER}/\2", markdown)
