"""What rows give where the API wants no text: held against the SDK's types when a request is made.

What is written out in the params is checked when the pipeline is loaded. A value that only a row gives is checked
here. Where text is wanted a number becomes text, as in prompts, and a text costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from batch_assets.core.template.params_check import Check, has_parts, members
from batch_assets.core.template.sdk_types import request_type
from batch_assets.core.template.values import TEXT_KEYS, RowRejectedError, as_text, dump

RowCheck = Callable[[Any, str], Any]
"""(value, field) -> what is sent of it; raises RowRejectedError"""

_MAX_TOKENS = "params.max_tokens"


def row_checks(
    outline: Mapping[str, Any], *, betas: bool, also: Iterable[str] = (), allow_unknown: bool = False
) -> dict[str, RowCheck]:
    """The checks of what rows give, by the field whose value it is.

    Args:
        outline, betas, also, allow_unknown: as `check_params` takes them.
    """
    known = {name: value for name, value in outline.items() if name not in also}
    found = Check(allow_unknown)
    found.object(known, request_type(beta=betas), "params")
    checks = {}
    for field, types in found.of_rows.items():
        kinds = [kind for type_ in types for kind in members(type_)]
        if any(kind in (object, Any) for kind in kinds):
            continue
        if str not in kinds or any(map(has_parts, kinds)):
            checks[field] = _check(types, str in kinds, allow_unknown)
        elif field.rpartition(".")[2] not in TEXT_KEYS:  # what stands there is text already
            checks[field] = _text_check(type(None) in kinds)
    return checks


def _text_check(takes_null: bool) -> RowCheck:
    def check(value: Any, field: str) -> Any:
        if type(value) is str or (value is None and takes_null):
            return value
        if value is None or isinstance(value, list | tuple | dict):
            found = "null" if value is None else "an object" if isinstance(value, dict) else "a list"
            raise RowRejectedError("template_error", f"{field}: {found} where text is wanted")
        return as_text(value, field)

    return check


def _check(types: list[Any], takes_text: bool, allow_unknown: bool) -> RowCheck:
    walk = Check(allow_unknown, hints=False)

    def check(value: Any, field: str) -> Any:
        if takes_text and type(value) is str:
            return value
        if type(value) not in (str, int, bool):
            value = orjson.loads(dump(value, field))  # as it is sent
        problems = [problem for type_ in types if (problem := walk.value(value, type_, field)) is not None]
        if len(problems) == len(types):
            raise RowRejectedError("template_error", f"{problems[0][0]}: {problems[0][1]}")
        if field == _MAX_TOKENS and value < 1:
            raise RowRejectedError("template_error", f"{field}: a batch refuses {value}: give at least 1")
        return value

    return check
