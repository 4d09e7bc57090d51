"""Make strings that satisfy a JSON schema: formats, lengths and regular expressions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from batch_assets.emulator.draws import Draws

_WORDS = (
    *("amber", "basalt", "cedar", "delta", "ember", "fjord", "garnet", "harbor", "indigo", "juniper"),
    *("kelp", "lagoon", "maple", "nectar", "onyx", "pebble", "quartz", "river", "saffron", "tundra"),
)


def _date(draws: Draws) -> str:
    return f"{draws.between(2020, 2029)}-{draws.between(1, 12):02}-{draws.between(1, 28):02}"


def _time(draws: Draws) -> str:
    return f"{draws.below(24):02}:{draws.below(60):02}:{draws.below(60):02}Z"


def _uuid(draws: Draws) -> str:
    digits = f"{draws.bits():012x}{draws.bits():012x}{draws.bits():012x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"


def _host(draws: Draws) -> str:
    return f"{draws.pick(_WORDS)}.example.com"


_FORMATS: dict[str, Callable[[Draws], str]] = {
    "date": _date,
    "time": _time,
    "date-time": lambda draws: f"{_date(draws)}T{_time(draws)}",
    "duration": lambda draws: f"P{draws.between(1, 30)}D",
    "email": lambda draws: f"{draws.pick(_WORDS)}{draws.below(1000)}@example.com",
    "idn-email": lambda draws: f"{draws.pick(_WORDS)}{draws.below(1000)}@example.com",
    "hostname": _host,
    "idn-hostname": _host,
    "uri": lambda draws: f"https://{_host(draws)}/{draws.pick(_WORDS)}/{draws.below(10_000)}",
    "uri-reference": lambda draws: f"/{draws.pick(_WORDS)}/{draws.below(10_000)}",
    "uri-template": lambda draws: f"/{draws.pick(_WORDS)}/{{id}}",
    "iri": lambda draws: f"https://{_host(draws)}/{draws.pick(_WORDS)}",
    "iri-reference": lambda draws: f"/{draws.pick(_WORDS)}/{draws.below(10_000)}",
    "json-pointer": lambda draws: f"/{draws.pick(_WORDS)}/{draws.below(100)}",
    "relative-json-pointer": lambda draws: f"{draws.below(10)}/{draws.pick(_WORDS)}",
    "regex": lambda draws: f"^{draws.pick(_WORDS)}+$",
    "ipv4": lambda draws: f"192.0.2.{draws.below(256)}",
    "ipv6": lambda draws: f"2001:db8::{draws.between(1, 65535):x}",
    "uuid": _uuid,
}


def compile_string(schema: Mapping[str, Any]) -> Callable[[Draws, int], str]:
    """Make a function that makes strings for a schema.

    They satisfy `format` alone if the schema has a known one, otherwise `pattern` and the length limits.
    """
    by_format = _FORMATS.get(schema.get("format", ""))
    if by_format is not None:
        return lambda draws, depth: by_format(draws)
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if "pattern" in schema:
        return _compile_pattern(schema["pattern"], least, most)

    def make(draws: Draws, depth: int) -> str:
        text = f"emulated {draws.pick(_WORDS)} {draws.pick(_WORDS)} {draws.below(1000)}"
        if len(text) < least:
            text += " lorem" * ((least - len(text)) // 6 + 1)
            text = text[: max(least, most or 0)]
        if most is not None and len(text) > most:
            # The first letters of the words would often be the same, while all digits of a UUID differ.
            text = _uuid(draws)[:most] if most <= 16 else text[:most]
        return text

    return make


def _compile_pattern(pattern: str, least: int, most: int | None) -> Callable[[Draws, int], str]:
    from batch_assets.emulator.pattern_instance import pattern_instance

    compiled = re.compile(pattern)

    def make(draws: Draws, depth: int) -> str:
        for _ in range(50):  # lookarounds and length limits are satisfied by trying again
            text = pattern_instance(pattern, draws)
            if len(text) >= least and (most is None or len(text) <= most) and compiled.search(text):
                return text
        raise ValueError(f"no string found for the pattern {pattern!r}")

    return make
