"""A template depends on its row and its files, not on the clock, the time zone or the memory of the machine."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pandas as pd
import pytest

from batch_assets.core.template.template import RowRejectedError, Template

_AT = dt.datetime(2024, 1, 2, 3, 4, 5)
_KEYS = "zyxwvutsrqponm"
_ROW = {
    "at": _AT,
    "utc": _AT.replace(tzinfo=dt.UTC),
    "day": _AT.date(),
    "clock": _AT.time(),
    "ns": pd.Timestamp(_AT).as_unit("ns"),
    "meta": {"at": _AT, "now": "a key", "today": "another"},
    "keys": dict.fromkeys(_KEYS, 1),
    "text": "x",
}


@pytest.fixture(autouse=True)
def tokyo() -> Iterator[None]:
    """The time zone of the machine."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def rendered(template: str, folder: Path = Path("/nowhere")) -> str:
    value: str = orjson.loads(Template({"system": template}, folder, "x", dataset=_ROW).render(_ROW))["system"]
    return value


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        *(
            (f"{{{{ {call}() }}}}", "is the time of rendering")
            for call in ("at.now", "at.utcnow", "day.today", "meta.at.today", "ns.now", "(at | attr('now'))")
        ),
        ("{{ at.now(utc.tzinfo) }}", "read the time from a column"),
        ("{{ ns.to_period('D').now('D') }}", "read the time from a column"),
        ("{{ day.strftime('%s') }}", "leave it out of the format"),
        ("{{ at.fromtimestamp(0) }}", "utcfromtimestamp()"),
        ("{{ day.fromtimestamp(0) }}", "without a time zone"),
        ("{{ ns.fromtimestamp(0) }}", "without a time zone"),
        ("{{ ns.fromordinal(738000, tz='tzlocal()') }}", "without a time zone"),
        ("{{ at.timestamp() }}", "give the column of the dataset a time zone"),
        ("{{ at.astimezone(utc.tzinfo) }}", "depends here on the time zone"),
        ("{{ utc.astimezone() }}", "depends here on the time zone"),
        ("{{ utc.astimezone(tz=none) }}", "depends here on the time zone"),
        ("{{ ns.tz_localize('tzlocal()') }}", "depends here on the time zone"),
        ("{{ at.strftime('%Y %-s') }}", "%s depends on the time zone"),
        ("{{ clock.strftime(format='%s') }}", "%s depends on the time zone"),
        ("{{ '{:%s}'.format(at) }}", "%s depends on the time zone"),
        ("{{ '%s' % text.upper }}", "a function of the template language"),
        ("{{ '{}'.format(text.upper) }}", "a function of the template language"),
        ("{{ cycler('a') }}", "a function of the template language"),
    ],
)
def test_what_depends_on_the_machine_rejects_the_row(template: str, problem: str) -> None:
    with pytest.raises(RowRejectedError, match=r"^params\.system|^system") as refused:
        rendered(f"{{{{ text }}}}\n{template}")
    assert problem in refused.value.message
    assert refused.value.message.endswith("(line 2)")


def test_an_included_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "prompt.md").write_text("text\n{{ at.now() }}")
    with pytest.raises(RowRejectedError, match=r"now\(\) is the time of rendering.*\(prompt\.md, line 2\)$"):
        rendered("{% include 'prompt.md' %}", tmp_path)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ utc.timestamp() }} {{ ns.timestamp() }}", "1704164645.0 1704164645.0"),
        ("{{ utc.astimezone(utc.tzinfo) }}", "2024-01-02 03:04:05+00:00"),
        ("{{ ns.tz_localize('UTC').tz_convert('Asia/Kolkata') }}", "2024-01-02 08:34:05+05:30"),
        ("{{ at.fromtimestamp(0, utc.tzinfo) }}", "1970-01-01 00:00:00+00:00"),
        ("{{ at.strftime('%d.%m.%Y %H:%M:%S %%s') }} {{ '{:%Y}'.format(at) }}", "02.01.2024 03:04:05 %s 2024"),
        ("{{ day.fromisoformat('2024-01-05') - day }}", "3 days, 0:00:00"),
        ("{{ meta.now }} {{ meta['today'] }}", "a key another"),
        ("{% macro today(x) %}{{ x }}!{% endmacro %}{{ today(text) }}", "x!"),
    ],
)
def test_what_depends_on_the_row_alone_is_rendered(template: str, text: str) -> None:
    assert rendered(template) == text


def test_the_difference_of_keys_and_a_set_of_a_file_have_their_own_order(tmp_path: Path) -> None:
    (tmp_path / "set.yaml").write_text("!!set {" + ", ".join(_KEYS) + "}")
    assert rendered("{{ (keys.keys() - ['z'] - meta.keys()) | join }}") == _KEYS[1:]
    assert rendered("{{ text }}{{ load('set.yaml') | join }}", tmp_path) == "x" + _KEYS
