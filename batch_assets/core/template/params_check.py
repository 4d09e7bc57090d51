"""Check params against the SDK's request types: unknown, misplaced and missing fields, and wrong kinds of values.

This module has no model of the API of its own. It reads everything from the types of the installed SDK.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin

import orjson
from typing_extensions import ReadOnly, get_type_hints, is_typeddict

from batch_assets.core.template.batch_rules import REFUSED
from batch_assets.core.template.model_rules import Problem
from batch_assets.core.template.outline import Unknown, entries
from batch_assets.core.template.sdk_types import request_type, sdk_version

# The fields that distinguish the members of a union: `type` for blocks, tools and sources, `role` for messages.
_DISCRIMINATORS = ("type", "role")
_KINDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", dict: "an object"}
_MEANT = ": did you mean "
_MOST_NAMES = 24
_MOST_OWNERS = 6


def check_params(
    outline: Mapping[str, Any], *, betas: bool, also: Iterable[str] = (), allow_unknown: bool = False
) -> Problem | None:
    """Find the first problem for which the API would refuse the params, as far as the installed SDK knows the API.

    Args:
        outline: The params as returned by `Template.outline`.
        betas: Whether the request uses beta features. Then their fields and blocks are known too.
        also: Fields of the params that the API accepts although the SDK does not know them.
        allow_unknown: Whether to accept fields and types that the SDK does not know.
    """
    known = {name: value for name, value in outline.items() if name not in also}
    problem = Check(allow_unknown).object(known, request_type(beta=betas), "params")
    if problem is None:
        return None
    field, text, is_unknown = problem
    if is_unknown and not betas and _is_beta(known, field):
        text = "not available without a beta feature: name that beta in `betas`, beside `params`"
    elif is_unknown and _MEANT not in text:
        text += (
            f" If it is newer than the installed SDK (anthropic {sdk_version()}), set allow_unknown_params: true"
        )
    return field, text


def _is_beta(params: Mapping[str, Any], field: str) -> bool:
    """Whether the types for beta features know a field or value that the other types do not know."""
    problem = Check(allow_unknown=False).object(params, request_type(beta=True), "params")
    return problem is None or problem[0] != field or not problem[2]


_Finding = tuple[str, str, bool]
"""(field, what is wrong, whether it may only be unknown to the SDK)."""


class Check:
    """Finds the first value that does not fit its type. Methods return `None` if everything fits.

    Args:
        allow_unknown: See `check_params`.
        hints: Whether to say what to write in the pipeline file instead.

    Attributes:
        of_rows: The types of values that only rows give, by field. A value must fit one of them.
    """

    def __init__(self, allow_unknown: bool, *, hints: bool = True) -> None:
        self._allow_unknown, self._hints = allow_unknown, hints
        self.of_rows: dict[str, list[Any]] = {}

    def value(self, value: Any, type_: Any, field: str) -> _Finding | None:
        """Check a value against a type.

        Args:
            value: The value, as `Template.outline` returns it.
            type_: The type.
            field: The field of the value.
        """
        if value is Unknown.VALUE:
            self.of_rows.setdefault(field, []).append(type_)
            return None
        if isinstance(value, orjson.Fragment):
            return None
        fitting = [member for member in members(type_) if _fits(value, member)]
        if not fitting:
            hint = _hint(value, type_) if self._hints else ""
            return field, f"{_described(value)} where {_wanted(type_)} is wanted{hint}", False
        if isinstance(value, dict):
            return self._any_object(value, fitting, field)
        if isinstance(value, list):
            return _deepest([self._list(value, member, field) for member in fitting])
        choices = [choice for member in fitting for choice in _choices(member)]
        if isinstance(value, str) and choices and value not in choices and all(map(_choices, fitting)):
            return self._unknown(field, f"there is no {value!r} here{_nearest(value, choices)}")
        return None

    def object(self, value: Mapping[str, Any], type_: Any, field: str) -> _Finding | None:
        """Check an object against one TypedDict.

        Args:
            value: The object.
            type_: The TypedDict.
            field: The field of the object.
        """
        fields = _fields(type_)
        is_params = field == "params"
        for name in value:
            if name not in fields and not _is_open(type_):
                usable = [field for field in fields if not (is_params and field in REFUSED)]
                text = f"there is no such field here{_nearest(name, usable)}{_elsewhere(name)}"
                if (problem := self._unknown(f"{field}.{name}", text)) is not None:
                    return problem
        for name, (required, _) in fields.items():
            if required and name not in value:
                return f"{field}.{name}", "this field is required here", False
        for name, sub in value.items():
            if name in fields:
                problem = self.value(sub, fields[name][1], f"{field}.{name}")
                if problem is not None:
                    return problem
        return None

    def _any_object(self, value: dict[str, Any], candidates: list[Any], field: str) -> _Finding | None:
        """Check an object against those members of a union that are objects."""
        for name in _DISCRIMINATORS:
            choices = {id(member): _discriminator(member, name) for member in candidates}
            if not any(choices.values()):
                continue
            if name not in value:
                without = [member for member in candidates if not _requires(member, name)]
                if not without:
                    accepted = sorted({choice for words in choices.values() for choice in words})
                    return f"{field}.{name}", f"this field is required here: {_listed(accepted)}", False
                candidates = without
                continue
            word = value[name]
            if isinstance(word, Unknown):
                continue
            matching = [member for member in candidates if word in choices[id(member)]]
            open_ = [member for member in candidates if not choices[id(member)]]
            if not matching and not open_:
                accepted = sorted({choice for words in choices.values() for choice in words})
                if not isinstance(word, str):
                    hint = _hint(word, str) if self._hints else ""
                    return f"{field}.{name}", f"{_described(word)} where text is wanted{hint}", False
                return self._unknown(f"{field}.{name}", f"there is no {word!r} here{_nearest(word, accepted)}")
            candidates = matching or open_
        return _deepest([self._one_object(value, member, field) for member in candidates])

    def _one_object(self, value: dict[str, Any], member: Any, field: str) -> _Finding | None:
        if is_typeddict(member):
            return self.object(value, member, field)
        of_values = get_args(member)[1] if get_args(member) else object
        problems = (self.value(sub, of_values, f"{field}.{name}") for name, sub in value.items())
        return next((problem for problem in problems if problem is not None), None)

    def _list(self, value: list[Any], member: Any, field: str) -> _Finding | None:
        of_entries = get_args(member)[0] if get_args(member) else object
        problems = (self.value(entry, of_entries, entry_field) for entry_field, entry in entries(value, field))
        return next((problem for problem in problems if problem is not None), None)

    def _unknown(self, field: str, text: str) -> _Finding | None:
        return None if self._allow_unknown else (field, text, True)


def _deepest(problems: list[_Finding | None]) -> _Finding | None:
    """`None` if one member of a union fits the value, else the problem of the member that fits it best."""
    findings = [problem for problem in problems if problem is not None]
    if len(findings) < len(problems):
        return None
    return max(findings, key=lambda problem: problem[0].count(".") + problem[0].count("["))


def _is_wrapped(type_: Any) -> bool:
    """Whether the type is inside a wrapper that a TypedDict allows, such as Required."""
    wrappers: tuple[Any, ...] = (Required, NotRequired, ReadOnly, Annotated)
    return get_origin(type_) in wrappers


def _bare(type_: Any) -> Any:
    """A type without its wrappers."""
    while _is_wrapped(type_):
        type_ = get_args(type_)[0]
    return type_


@cache
def members(type_: Any) -> tuple[Any, ...]:
    """Return the types that a value may have: the members of a union, or the type itself."""
    type_ = _bare(type_)
    if get_origin(type_) in (Union, UnionType):
        return tuple(member for inner in get_args(type_) for member in members(inner))
    return (type_,)


@cache
def _fields(type_: Any) -> dict[str, tuple[bool, Any]]:
    """(whether it is required, type) of each field of a TypedDict, by the name that is sent."""
    fields = {}
    for name, hint in get_type_hints(type_, include_extras=True).items():
        required, alias = False, name
        while _is_wrapped(hint):
            origin: Any = get_origin(hint)
            required |= origin is Required
            for extra in get_args(hint)[1:]:
                alias = getattr(extra, "alias", None) or alias
            hint = get_args(hint)[0]
        fields[alias] = (required, hint)
    return fields


def _is_open(type_: Any) -> bool:
    """Whether the API accepts fields that the TypedDict does not have."""
    return bool(getattr(type_, "__pydantic_config__", {}).get("extra") == "allow")


def _choices(type_: Any) -> tuple[Any, ...]:
    return get_args(type_) if get_origin(type_) is Literal else ()


def _discriminator(member: Any, name: str) -> tuple[Any, ...]:
    """The possible values of a field of a TypedDict, if they are limited to a few words; else none."""
    if not is_typeddict(member) or name not in _fields(member):
        return ()
    return tuple(choice for inner in members(_fields(member)[name][1]) for choice in _choices(inner))


def _requires(member: Any, name: str) -> bool:
    return is_typeddict(member) and name in _fields(member) and _fields(member)[name][0]


def _fits(value: Any, member: Any) -> bool:
    """Whether a value is of the same kind as a type. The content of the value does not matter."""
    if member is object or member is Any:
        return True
    origin = get_origin(member)
    if origin is Literal:
        kinds = {type(choice) for choice in get_args(member)}
        return (str in kinds and _is_text(value)) or type(value) in kinds
    if is_typeddict(member) or member is dict or origin is dict:
        return isinstance(value, dict)
    if value is None:
        return member is type(None)
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return isinstance(value, list)
    if member is str:
        return _is_text(value)
    if member is float:
        return type(value) in (int, float)
    return member in (bool, int) and type(value) is member


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or value is Unknown.TEXT


def _described(value: Any) -> str:
    if value is None:
        return "null"
    if value is Unknown.TEXT:
        return "text with an expression in it"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return f"{text[:40] + '…' if len(text) > 40 else text!r}" if isinstance(value, str) else text


def _hint(value: Any, type_: Any) -> str:
    """What to write instead of a value that does not fit a type."""
    if value is Unknown.TEXT:
        return ": write nothing but one {{ expression }} to give it a value of another kind"
    kinds = members(type_)
    takes_text = any(kind is str or get_origin(kind) is Literal for kind in kinds)
    if isinstance(value, bool) and takes_text:
        return ": if you mean the word, put it in quotes (in YAML, yes, no, on and off are true and false)"
    if isinstance(value, int | float | date) and takes_text:
        return ": if you mean text, put it in quotes"
    if isinstance(value, float) and value.is_integer() and int in kinds:
        return f": write {int(value)}"
    if isinstance(value, str) and _is_number(value) and not {int, float}.isdisjoint(kinds):
        return ": leave the quotes out"
    return ": leave the field out" if value is None else ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def has_parts(type_: Any) -> bool:
    """Whether a member of a union is a list or object type."""
    origin = get_origin(type_) or type_
    return is_typeddict(type_) or (isinstance(origin, type) and issubclass(origin, Iterable) and origin is not str)


def _wanted(type_: Any) -> str:
    """The kinds of values that fit a type, for texts."""
    names: list[str] = []
    for member in members(type_):
        origin = get_origin(member)
        if origin is Literal:
            names += [repr(choice) for choice in get_args(member)] if len(get_args(member)) < 4 else ["text"]
        elif is_typeddict(member):
            names.append(_KINDS[dict])
        elif isinstance(origin, type) and issubclass(origin, Iterable) and origin is not dict:
            names.append("a list")
        elif (origin or member) in _KINDS:
            names.append(_KINDS[origin or member])
    return " or ".join(dict.fromkeys(names))


def _nearest(name: str, known: list[Any]) -> str:
    words = sorted({str(word) for word in known})
    close = difflib.get_close_matches(name, words, n=3, cutoff=0.6)
    if close:
        return f"{_MEANT}{' or '.join(map(_quoted, close))}?"
    return f"; known here: {_listed(words)}."


def _listed(names: Iterable[Any], most: int = _MOST_NAMES) -> str:
    words = [_quoted(name) for name in names]
    return ", ".join(words if len(words) <= most else [*words[:most], f"{len(words) - most} more"])


def _quoted(name: Any) -> str:
    return f"`{name}`"


def _elsewhere(name: str) -> str:
    """Return the other parts of a request that have a field of that name, as a sentence; "" without any."""
    owners = _owners().get(name, [])
    return f" It is a field of {_listed(owners, _MOST_OWNERS)}." if owners else ""


@cache
def _owners() -> dict[str, list[str]]:
    """Return the parts of a request by the fields they have: params, message, or the type of a block or tool."""
    owners: dict[str, list[str]] = {}
    queue, visited = [(request_type(beta=False), "params")], set()
    while queue:
        type_, owner = queue.pop(0)
        if not is_typeddict(type_):
            queue += [(inner, "") for inner in get_args(_bare(type_)) if not isinstance(inner, str)]
            continue
        if type_ in visited:
            continue
        visited.add(type_)
        if not owner:
            is_message = bool(_discriminator(type_, "role"))
            owner = "message" if is_message else next(iter(_discriminator(type_, "type")), "")
        for name, (_, hint) in _fields(type_).items():
            if owner and owner not in owners.setdefault(name, []):
                owners[name].append(str(owner))
            queue += [(member, "") for member in members(hint)]
    return owners
