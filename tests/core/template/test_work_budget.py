"""The work of templates is limited for each row. A row whose templates do more is rejected."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.errors import ConfigError
from batch_assets.core.template import work_budget
from batch_assets.core.template.template import RowRejectedError, Template

BIG = "word text, " * 1_000
MANY = "{% for a in range(90000) %}"
END = "{% endfor %}"
PAIRS = "{% set ns = namespace(l=(1, 1)) %}{% for a in range(60) %}{% set ns.l = (ns.l, ns.l) %}{% endfor %}"
TREE = "{% set ns = namespace(l=[1]) %}{% for a in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}"


def render(source: str, folder: Path = Path("/nowhere"), **row: Any) -> str:
    return Template({"k": source}, folder, "x").render({"big": BIG, "xs": [1, 2], **row}).decode()[6:-2]


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget of 1/500, so that the cases that count to its end do so in milliseconds."""
    monkeypatch.setattr(work_budget, "UNITS", 1 << 21)
    monkeypatch.setattr(work_budget, "STEPS", 100_000)


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize(
    "work",
    [
        "{{ big }}",
        "{{ 'x' * 20000 }}",
        "some constant text of the template itself, in each round",
        "{% set x = big | upper %}",
        "{% set x = big | trim | replace('w', 'v') %}",
        "{% set x = big | list %}",
        "{% set x = big | title %}",
        "{% set x = big | urlize %}",
        "{% set x = big | wordwrap(9) %}",
        "{% set x = big | wordcount %}",
        "{% set x = big | pprint %}",
        "{% set x = big | tojson %}",
        "{% set x = big | base64 %}",
        "{% set x = big | truncate(9000) %}",
        "{% set x = big.split() %}",
        "{% set x = big.encode() %}",
        "{% set x = big.find('zz') %}",
        "{% set x = big.translate({119: 'v'}) %}",
        "{% set x = big.startswith(big) %}",
        "{% set x = big[1:] %}",
        "{% set x = big[::-1] %}",
        "{% set x = big ~ 'x' %}",
        "{% set x = big + 'x' %}",
        "{% set x = [1] * 30000 %}",
        "{% set x = '%s' % big %}",
        "{% set x = '{}'.format(big) %}",
        "{% set x = '%9999s' | format(1) %}",
        "{% set x = '%9999s' % 1 %}",
        "{% set x = 'x' | center(9999) %}",
        "{% set x = 'x'.center(9999) %}",
        "{% set x = range(9000) | list %}",
        "{% set x = range(9000) | sum %}",
        "{% set x = range(9000) | sort %}",
        "{% set x = range(9000) | join %}",
        "{% set x = range(9000) | map('string') | list %}",
        "{% set x = range(9000) | reject | list %}",
        "{% set x = range(9000) | select('eq', -1) | list %}",
        "{% set x = dict.fromkeys(range(9000)) %}{{ x.keys() - x.keys() }}",
        "{% set x = cycler(*range(9000)) %}",
        "{% if 'zz' in big %}y{% endif %}",
        "{% if -1 in range(9000) | list %}y{% endif %}",
        "{% set y = range(99) | list %}{% if y == xs %}y{% endif %}{% if xs == y %}y{% endif %}",
        "{% if big < big ~ 'x' %}y{% endif %}",
        "{% if 'zz' is in big %}y{% endif %}",
        "{% if big is lower %}y{% endif %}",
        "{% set x %}{{ big }}{% endset %}",
        "{% filter upper %}{{ big }}{% endfilter %}",
        "{% include 'part.txt' %}",
        "{% for b in range(90000) %}{% endfor %}",
        "{{ range(9000) | list }}",
        "{% set x = [big, [big]] ~ '' %}",
        "{% set x = (5).to_bytes(9999, 'big') %}",
    ],
)
def test_work_in_a_loop_ends(tmp_path: Path, work: str) -> None:
    (tmp_path / "part.txt").write_text("x" * 1000)
    with pytest.raises(RowRejectedError, match=r"too much work for one row|more than 100,000 loop rounds"):
        render(MANY + work + END, tmp_path)


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize(
    "source",
    [
        TREE + "{{ ns.l }}",
        TREE + "{{ ns.l | tojson }}",
        TREE + "{{ ns.l | string }}",
        TREE + "{{ ns.l ~ '' }}",
        TREE + "{{ '{}'.format(ns.l) }}",
        TREE + "{{ '%s' | format(ns.l) }}",
        TREE + "{{ '%s %s' % (ns.l, 1) }}",
        TREE + "{{ ns.l | tojson(indent=1) }}",
        TREE + "{{ ns.l | sum(start=[]) }}",
        PAIRS + "{{ {ns.l: 1} | length }}",
        PAIRS + "{{ {1: 2}[ns.l] }}",
        PAIRS + "{{ {}.get(ns.l) }}",
        PAIRS + "{{ dict([(ns.l, 1)]) | length }}",
        PAIRS + "{{ dict.fromkeys([ns.l]) | length }}",
        PAIRS + "{{ namespace([(ns.l, 1)]) | string }}",
        PAIRS + "{% for a in (1, 2) %}{{ loop.changed(ns.l) }}{% endfor %}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(30) }}{{ big }}",
        "{% for x in xs recursive %}{{ loop(range(100000)) }}{% endfor %}",
        "{% set n = 0 %}{% include 'twice.txt' %}",
    ],
)
def test_what_grows_with_each_level_ends(tmp_path: Path, source: str) -> None:
    twice = "{% include 'twice.txt' %}" * 2
    (tmp_path / "twice.txt").write_text("{% set n = n + 1 %}{% if n < 40 %}" + twice + "{% endif %}")
    with pytest.raises((RowRejectedError, ConfigError), match=r"too much work|more than 100,000 loop|recursion"):
        render(source, tmp_path)


GIANT = r"too much work|a value of more than|a product of more|a power of more|recursion|a format with"


@pytest.mark.parametrize(
    "source",
    [
        "{{ range(100000) | join(big) }}",
        "{{ (big * 10).join((big * 10).split()) }}",
        "{{ (big * 10) | join(big) }}",
        "{{ (big * 10).translate({119: big * 90}) }}",
        "{{ (big * 90) | replace('w', big) }}",
        "{{ (big * 90).replace('', big) }}",
        "{{ big | replace('w', big * 900) | replace('w', big * 900) }}",
        "{% set ns = namespace(n=3) %}{% for a in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
        "{{ ('\t' * 1000000).expandtabs(1000000) }}",
        "{{ ('%999999s' * 10000) | format(*range(10000)) }}",
        "{{ ('%999999s' * 10000) % (big,) }}",
        "{{ ('{0:>999999}' * 10000).format('a') }}",
        "{{ ('{0}' * 1000000).format(big) }}",
        "{{ ('{a}' * 1000000).format_map({'a': big}) }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ [[[[big] * 1000] * 1000] * 1000] * 1000 }}",
        "{{ ([[1] * 1000] * 100000) | sum(start=[]) }}",
        "{{ [1] | batch(200000000, 0) | list }}",
        "{{ [1] | slice(60000000) | list }}",
        "{{ ('a\n' * 1000000) | indent(100000) }}",
        "{{ ('a\n' * 1000000) | indent(big) }}",
        "{{ big | wordwrap(1, true, big * 9) }}",
        "{{ ('http://a.b ' * 100000) | urlize(target=big) }}",
        "{{ big.split() | tojson(indent=100000) }}",
        "{{ 15 | round(-1000000000) }}",
        "{{ 1.5 | round(1000000000, 'floor') }}",
        "{{ ([big * 90] * 2000) | join }}",
        "{{ ([big * 90] * 2000) ~ '' }}",
    ],
)
def test_giant_values_are_refused_before_they_are_made(source: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((RowRejectedError, ConfigError), match=GIANT):
        render(source)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000  # kB


GROWING = "{% set ns = namespace(l=[]) %}{% for a in range(3000) %}{% set ns.l = ns.l + [a] %}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "length"),
    [
        ("{% for a in range(1000) %}{{ text }}{% endfor %}", 10_000_000),
        ("{{ text * 1000 }}", 10_000_000),
        ("{% for a in range(100000) %}{{ a | string | upper }}{% endfor %}", 488_890),
        ("{{ range(100000) | join(', ') }}", 688_888),
        ("{% for a in range(5000) %}{% if 'zz' in text %}{% endif %}{% endfor %}{{ text[1:] }}", 9_999),
        (GROWING + "{{ ns.l | length }}", 4),
    ],
)
def test_ordinary_work_is_well_within_the_limits(source: str, length: int) -> None:
    rendered = render(source + " ", text="y" * 10_000).strip()
    assert len(rendered) == length


def test_a_large_row_may_be_worked_on_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_budget, "UNITS", 1 << 12)
    source = "{{ text | trim | upper | replace('Y', 'Z') ~ '!' }} {{ text | length }}"
    text = "y" * 1_000_000
    assert render(source, text=text) == text.replace("y", "Z") + "! 1000000"
    with pytest.raises(RowRejectedError, match="too much work for one row"):
        render("{% for a in range(20) %}{{ text }}{% endfor %}", text=text)


def test_each_row_has_the_whole_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_budget, "UNITS", 1 << 12)
    template = Template({"k": "{% for a in range(3) %}{{ v }}{% endfor %}"}, Path("/nowhere"), "x")
    for _ in range(100):
        template.render({"v": "x" * 1000})


def test_an_error_of_an_item_that_comes_late_rejects_the_row() -> None:
    with pytest.raises(RowRejectedError, match="bad operand type"):
        render("{{ words | map('abs') }}", words=["a"])
