"""The validator of jsonschema-rs with the options for answers, and checks of single texts with it.

The library takes 0.1 s to import, so it is imported only when a schema needs it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from batch_assets.core.answers.patterns import translated

if TYPE_CHECKING:
    import jsonschema_rs


def build(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """Build a validator that checks formats and fetches nothing.

    Args:
        schema: The schema. It is read as draft 2020-12, which the API uses, whatever its `$schema` says.

    Raises:
        jsonschema_rs.ValidationError: When the schema has a part that cannot be read.
    """
    import jsonschema_rs

    email = jsonschema_rs.EmailOptions(allow_display_text=False)
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True, offline=True, email_options=email)


def is_too_slow(error: jsonschema_rs.ValidationError) -> bool:
    """Whether a value was not checked to the end, because its pattern took too long."""
    from jsonschema_rs import ValidationErrorKind

    kinds = (ValidationErrorKind.BacktrackLimitExceeded, ValidationErrorKind.RegexEngineFailure)
    return isinstance(error.kind, kinds)


def can_check_text(word: str, limit: str) -> bool:
    """Whether texts can be checked against a format or a pattern."""
    try:
        _text_validator(word, limit)
    except ValueError:  # a ValidationError of the library
        return False
    return True


def text_keeps(word: str, limit: str, text: str) -> bool:
    """Whether a text has a format or matches a pattern.

    Args:
        word: "format" or "pattern".
        limit: The format or the pattern.
        text: The text.
    """
    return _text_validator(word, limit).is_valid(text)


def text_takes_too_long(word: str, limit: str, text: str) -> bool:
    """Whether a text that fails the check of `text_keeps` was not checked to the end."""
    return any(map(is_too_slow, _text_validator(word, limit).iter_errors(text)))


@lru_cache(maxsize=256)
def _text_validator(word: str, limit: str) -> jsonschema_rs.Draft202012Validator:
    return build({word: translated(limit) if word == "pattern" else limit})
