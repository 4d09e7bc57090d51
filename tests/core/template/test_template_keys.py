"""Which keys a template may look up in objects."""

from __future__ import annotations

import jinja2
import pytest

from batch_assets.core.template.template_keys import keys_in


@pytest.mark.parametrize(
    ("template", "keys"),
    [
        ("{{ text }}{% if meta %}{{ meta | tojson }}{% endif %}", set()),
        ("{{ meta.a }}{{ meta['b'] }}{{ meta.c.d }}{{ tags[0] }}{{ tags[1:] }}", {"a", "b", "c", "d"}),
        ("{% for item in items %}{{ item.name | upper }}{% endfor %}", {"name"}),
        ("{{ meta.items() | sort | join(', ') }}{{ tags | map('upper') | unique | list }}", {"items"}),
        ("{% macro one(x) %}{{ x.inner }}{% endmacro %}{{ one(meta) }}", {"inner"}),
        *(
            (template, None)
            for template in (
                "{{ meta[key] }}",
                "{{ meta['a' ~ 'b'] }}",
                "{{ '{0.a}'.format(meta) }}",
                "{{ ('{a}' | attr('format'))(a=meta) }}",
                "{{ '{a[b]}'.format_map(row) }}",
                "{{ tags | map(attribute='a') | list }}",
                "{{ tags | map('attr', 'a') | list }}",
                "{{ tags | map(name) | list }}",
                "{{ tags | sort(attribute='a') }}",
                "{{ tags | sort(false, false, 'a') }}",
                "{{ tags | join(',', 'a') }}",
                "{{ tags | sum('a') }}",
                "{{ tags | sum(**more) }}",
                "{{ tags | selectattr('a') | list }}",
                "{{ tags | groupby('a') }}",
                "{% filter attr('a') %}x{% endfilter %}",
            )
        ),
    ],
)
def test_the_keys_that_a_template_may_look_up_are_known(template: str, keys: set[str] | None) -> None:
    assert keys_in(jinja2.Environment().parse(template)) == keys
