"""Check values from rows against the SDK's types when a request is built.

Values that are written out in the params are checked when the pipeline is loaded. Values that only a row gives are
checked here. Where the API wants text, a number becomes text, as in prompts. Checking a text is almost free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from batch_assets.core.errors import ErrorType
from batch_assets.core.template.params_check import Check, has_parts, members
from batch_assets.core.template.sdk_types import request_type
from batch_assets.core.template.values import TEXT_KEYS, RowRejectedError, as_text, dump


@dataclass(frozen=True)
class RowCheck:
    """A check of values from rows.

    Attributes:
        check: Takes (value, field), and returns the value to send or raises RowRejectedError.
        accepts_text: Whether any text is sent as it is.
    """

    check: Callable[[Any, str], Any]
    accepts_text: bool

    def __call__(self, value: Any, field: str) -> Any:
        """Check a value.

        Raises:
            RowRejectedError: When the API would refuse it.
        """
        return self.check(value, field)


_MAX_TOKENS = "params.max_tokens"


def row_checks(
    outline: Mapping[str, Any], *, betas: bool, also: Iterable[str] = (), allow_unknown: bool = False
) -> dict[str, RowCheck]:
    """Return the checks of values from rows, by field.

    Args:
        outline: See `check_params`.
        betas: See `check_params`.
        also: See `check_params`.
        allow_unknown: See `check_params`.
    """
    known = {name: value for name, value in outline.items() if name not in also}
    walk = Check(allow_unknown)
    walk.object(known, request_type(beta=betas), "params")
    checks = {}
    for field, types in walk.of_rows.items():
        kinds = [kind for type_ in types for kind in members(type_)]
        if any(kind in (object, Any) for kind in kinds):
            continue
        if str not in kinds or any(map(has_parts, kinds)):
            checks[field] = _check(types, str in kinds, allow_unknown)
        elif field.rpartition(".")[2] not in TEXT_KEYS:  # values of TEXT_KEYS are text already
            checks[field] = _text_check(type(None) in kinds)
    return checks


def _text_check(takes_null: bool) -> RowCheck:
    def check(value: Any, field: str) -> Any:
        if type(value) is str or (value is None and takes_null):
            return value
        if value is None or isinstance(value, list | tuple | dict):
            kind = "null" if value is None else "an object" if isinstance(value, dict) else "a list"
            raise RowRejectedError(ErrorType.TEMPLATE_ERROR, f"{field}: {kind} where text is wanted")
        return as_text(value, field)

    return RowCheck(check, accepts_text=True)


def _check(types: list[Any], takes_text: bool, allow_unknown: bool) -> RowCheck:
    walk = Check(allow_unknown, hints=False)

    def check(value: Any, field: str) -> Any:
        if takes_text and type(value) is str:
            return value
        if type(value) not in (str, int, bool):
            value = orjson.loads(dump(value, field))  # the value in the form in which it is sent
        problems = [problem for type_ in types if (problem := walk.value(value, type_, field)) is not None]
        if len(problems) == len(types):
            raise RowRejectedError(ErrorType.TEMPLATE_ERROR, f"{problems[0][0]}: {problems[0][1]}")
        if field == _MAX_TOKENS and value < 1:
            raise RowRejectedError(ErrorType.TEMPLATE_ERROR, f"{field}: a batch refuses {value}: give at least 1")
        return value

    return RowCheck(check, takes_text)
