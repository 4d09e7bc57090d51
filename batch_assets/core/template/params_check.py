"""Params against the SDK's own request types: unknown, misplaced and missing fields, and values of a wrong kind.

Nothing of the API is modelled here. What is known of it is read from the types of the installed SDK.
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

# What tells the members of a union apart: blocks, tools and sources by type, messages by role.
_TELLING = ("type", "role")
_KINDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", dict: "an object"}
_MEANT = ": did you mean "
_MOST_NAMES = 24
_MOST_PLACES = 6


def check_params(
    outline: Mapping[str, Any], *, betas: bool, also: Iterable[str] = (), allow_unknown: bool = False
) -> Problem | None:
    """The first thing that the API would not take, as far as the installed SDK knows the API.

    Args:
        outline: the params as `Template.outline` gives them.
        betas: whether beta features are asked for, whose fields and blocks are known then, too.
        also: fields of the params that the SDK does not know and the API takes.
        allow_unknown: fields and types that the SDK does not know are let through.
    """
    known = {name: value for name, value in outline.items() if name not in also}
    problem = Check(allow_unknown).object(known, request_type(beta=betas), "params")
    if problem is None:
        return None
    field, said, unknown = problem
    if unknown and not betas and _is_beta(known, field):
        said = "no such thing without a beta feature: name that beta in `betas`, beside `params`"
    elif unknown and _MEANT not in said:
        said += f" Is it newer than the installed SDK (anthropic {sdk_version()})? Then allow_unknown_params: true"
    return field, said


def _is_beta(params: Mapping[str, Any], field: str) -> bool:
    """Whether the types of the beta features know what the others do not know there."""
    problem = Check(allow_unknown=False).object(params, request_type(beta=True), "params")
    return problem is None or problem[0] != field or not problem[2]


_Found = tuple[str, str, bool]
"""(field, what is wrong, whether the SDK may just not know it yet)"""


class Check:
    """Looks for the first thing that does not fit a type. A method returns None when there is none.

    Args:
        allow_unknown: as `check_params` has it.
        hints: say what to write instead in the pipeline file.

    Attributes:
        of_rows: field -> the types of which one takes what rows give there.
    """

    def __init__(self, allow_unknown: bool, *, hints: bool = True) -> None:
        self._allow_unknown, self._hints = allow_unknown, hints
        self.of_rows: dict[str, list[Any]] = {}

    def value(self, value: Any, type_: Any, field: str) -> _Found | None:
        """A value against a type."""
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

    def object(self, value: Mapping[str, Any], type_: Any, field: str) -> _Found | None:
        """An object against one TypedDict."""
        fields = _fields(type_)
        is_params = field == "params"
        for name in value:
            if name not in fields and not _is_open(type_):
                usable = [field for field in fields if not (is_params and field in REFUSED)]
                said = f"there is no such field here{_nearest(name, usable)}{_elsewhere(name)}"
                if (problem := self._unknown(f"{field}.{name}", said)) is not None:
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

    def _any_object(self, value: dict[str, Any], among: list[Any], field: str) -> _Found | None:
        """An object against the members of a union that are objects."""
        for name in _TELLING:
            choices = {id(member): _telling(member, name) for member in among}
            if not any(choices.values()):
                continue
            if name not in value:
                free = [member for member in among if not _requires(member, name)]
                if not free:
                    known = sorted({choice for some in choices.values() for choice in some})
                    said = f"this field is required here: {_listed(known)}"
                    return f"{field}.{name}", said, False
                among = free
                continue
            given = value[name]
            if isinstance(given, Unknown):
                continue
            told = [member for member in among if given in choices[id(member)]]
            open_ = [member for member in among if not choices[id(member)]]
            if not told and not open_:
                known = sorted({choice for some in choices.values() for choice in some})
                if not isinstance(given, str):
                    hint = _hint(given, str) if self._hints else ""
                    return f"{field}.{name}", f"{_described(given)} where text is wanted{hint}", False
                return self._unknown(f"{field}.{name}", f"there is no {given!r} here{_nearest(given, known)}")
            among = told or open_
        return _deepest([self._one_object(value, member, field) for member in among])

    def _one_object(self, value: dict[str, Any], member: Any, field: str) -> _Found | None:
        if is_typeddict(member):
            return self.object(value, member, field)
        of_values = get_args(member)[1] if get_args(member) else object
        problems = (self.value(sub, of_values, f"{field}.{name}") for name, sub in value.items())
        return next((problem for problem in problems if problem is not None), None)

    def _list(self, value: list[Any], member: Any, field: str) -> _Found | None:
        of_entries = get_args(member)[0] if get_args(member) else object
        problems = (self.value(entry, of_entries, place) for place, entry in entries(value, field))
        return next((problem for problem in problems if problem is not None), None)

    def _unknown(self, field: str, said: str) -> _Found | None:
        return None if self._allow_unknown else (field, said, True)


def _deepest(problems: list[_Found | None]) -> _Found | None:
    """None if one member of a union takes the value, else what is wrong with the one that takes most of it."""
    found = [problem for problem in problems if problem is not None]
    if len(found) < len(problems):
        return None
    return max(found, key=lambda problem: problem[0].count(".") + problem[0].count("["))


def _is_wrapped(type_: Any) -> bool:
    """Whether something surrounds the type, as it may in a TypedDict."""
    wrappers: tuple[Any, ...] = (Required, NotRequired, ReadOnly, Annotated)
    return get_origin(type_) in wrappers


def _bare(type_: Any) -> Any:
    """A type without what surrounds it."""
    while _is_wrapped(type_):
        type_ = get_args(type_)[0]
    return type_


@cache
def members(type_: Any) -> tuple[Any, ...]:
    """What a value may be: the members of a union, or the type itself."""
    type_ = _bare(type_)
    if get_origin(type_) in (Union, UnionType):
        return tuple(member for inner in get_args(type_) for member in members(inner))
    return (type_,)


@cache
def _fields(type_: Any) -> dict[str, tuple[bool, Any]]:
    """name -> (required, type) of a TypedDict, by the names that are sent."""
    found = {}
    for name, hint in get_type_hints(type_, include_extras=True).items():
        required, alias = False, name
        while _is_wrapped(hint):
            origin: Any = get_origin(hint)
            required |= origin is Required
            for extra in get_args(hint)[1:]:
                alias = getattr(extra, "alias", None) or alias
            hint = get_args(hint)[0]
        found[alias] = (required, hint)
    return found


def _is_open(type_: Any) -> bool:
    """Whether the API takes fields that the TypedDict does not name."""
    return bool(getattr(type_, "__pydantic_config__", {}).get("extra") == "allow")


def _choices(type_: Any) -> tuple[Any, ...]:
    return get_args(type_) if get_origin(type_) is Literal else ()


def _telling(member: Any, name: str) -> tuple[Any, ...]:
    """What a field may be, in a TypedDict where it can be one of a few words only."""
    if not is_typeddict(member) or name not in _fields(member):
        return ()
    return tuple(choice for inner in members(_fields(member)[name][1]) for choice in _choices(inner))


def _requires(member: Any, name: str) -> bool:
    return is_typeddict(member) and name in _fields(member) and _fields(member)[name][0]


def _fits(value: Any, member: Any) -> bool:
    """Whether the kind of a value is that of a type, whatever is in it."""
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
    """What to write instead of a value that a type does not take."""
    if value is Unknown.TEXT:
        return ": leave nothing but one {{ expression }} to give it a value of another kind"
    kinds = members(type_)
    takes_text = any(kind is str or get_origin(kind) is Literal for kind in kinds)
    if isinstance(value, bool) and takes_text:
        return ": where a word was meant, put it in quotes (to YAML yes, no, on and off are true and false)"
    if isinstance(value, int | float | date) and takes_text:
        return ": where text was meant, put it in quotes"
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
    """Whether a member of a union is one of lists or objects."""
    origin = get_origin(type_) or type_
    return is_typeddict(type_) or (isinstance(origin, type) and issubclass(origin, Iterable) and origin is not str)


def _wanted(type_: Any) -> str:
    """The kinds of value that a type takes, for people."""
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
    """Where else in a request there is a field of that name."""
    places = _places().get(name, [])
    return f" It is a field of {_listed(places, _MOST_PLACES)}." if places else ""


@cache
def _places() -> dict[str, list[str]]:
    """field name -> what has it: params, message, or the type of a block, tool or source."""
    found: dict[str, list[str]] = {}
    waiting, seen = [(request_type(beta=False), "params")], set()
    while waiting:
        type_, named = waiting.pop(0)
        if not is_typeddict(type_):
            waiting += [(inner, "") for inner in get_args(_bare(type_)) if not isinstance(inner, str)]
            continue
        if type_ in seen:
            continue
        seen.add(type_)
        named = named or ("message" if _telling(type_, "role") else next(iter(_telling(type_, "type")), ""))
        for name, (_, hint) in _fields(type_).items():
            if named and named not in found.setdefault(name, []):
                found[name].append(str(named))
            waiting += [(member, "") for member in members(hint)]
    return found
