"""The reference of the Python API has every public name. `make docs` builds it, and fails if it is broken."""

from __future__ import annotations

import re

import batch_assets
from tests.documentation import page


def test_every_public_name_is_in_the_reference() -> None:
    listed = re.findall(r"^::: batch_assets\.(\w+)$", page("docs/api/README.md").text, re.M)
    assert sorted(listed) == sorted(batch_assets.__all__)
