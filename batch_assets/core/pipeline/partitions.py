"""The `partitions` block of a pipeline file, and what its keys stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import quote
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationInfo, field_validator, model_validator

from batch_assets.core.pipeline.block import ConfigBlock
from batch_assets.core.pipeline.timezones import check_timezone

PLACEHOLDER = "{partition}"
"""What stands for the key in the path of a dataset."""
TIME_KINDS = ("hourly", "daily", "weekly", "monthly")
KINDS = (*TIME_KINDS, "static", "dynamic")
"""The fields that say which partitions there are."""
# Keys of Dagster's time partitions; of an hour that comes twice, the second has its offset behind it.
KEY_FORMATS = {"hourly": "%Y-%m-%d-%H:%M", "daily": "%Y-%m-%d", "weekly": "%Y-%m-%d", "monthly": "%Y-%m-%d"}
_EXAMPLES = {"hourly": "2026-01-31-13:00", "daily": "2026-01-31", "weekly": "2026-02-01", "monthly": "2026-02-01"}
_BEGIN = {
    "hourly": "an hour begins",
    "daily": "a day begins",
    "weekly": "a week begins, on Sunday",
    "monthly": "a month begins",
}
# Of a month: long enough to end in the next one.
_LENGTHS = {"hourly": {"hours": 1}, "daily": {"days": 1}, "weekly": {"days": 7}, "monthly": {"days": 31}}
# Of a folder's name, percent-encoded, on every file system: 255 bytes with `partition=` before it.
_LONGEST = 240
# What Dagster takes in no key.
_REFUSED = re.compile(r"\.\.\.|[\x00-\x1f]")


@dataclass(frozen=True)
class Window:
    """The time that a partition stands for, in its timezone: `start` belongs to it, `end` to the next one."""

    start: datetime
    end: datetime


class Partitions(Protocol):
    """The partitions of a pipeline, as far as the core needs to know them.

    Attributes:
        column: of the dataset, whose value says which partition a row belongs to; None where files, a query or an
            asset do.
        is_time: whether keys stand for windows of time.
        timezone: of these windows, and of dates without one.
    """

    @property
    def column(self) -> str | None: ...
    @property
    def is_time(self) -> bool: ...
    @property
    def timezone(self) -> str: ...

    def window(self, key: str) -> Window:
        """The time that the key stands for.

        Errors:
            ValueError: it is no key of such a partition.
        """


class TimeConfig(ConfigBlock):
    """Which hours, days, weeks or months there are."""

    start: str = Field(
        description="Beginning of the first partition, such as 2026-01-01; hourly also 2026-01-01T13:00."
    )
    end: str | None = Field(default=None, description="Exclusive end. Default: no end.")
    timezone: str = Field(default="UTC", description="Time zone of the partitions, such as Europe/Berlin.")

    @field_validator("start", "end", mode="before")
    @classmethod
    def _is_text(cls, given: Any) -> Any:
        return given.isoformat() if isinstance(given, date) else given  # YAML makes a date of it

    @field_validator("start", "end")
    @classmethod
    def _is_a_time(cls, text: str | None) -> str | None:
        if text is None:
            return None
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is no date like 2026-01-01") from None
        if found.tzinfo is not None:
            raise ValueError(f"{text!r} has an offset: leave it out, `timezone` says where it counts")
        return text

    def moment(self, text: str) -> datetime:
        """Start or end, by the wall clock of the timezone."""
        return datetime.fromisoformat(text)

    @property
    def since(self) -> datetime:
        """The first moment that belongs to a partition."""
        return self.moment(self.start).replace(tzinfo=ZoneInfo(self.timezone))

    @property
    def until(self) -> datetime | None:
        """The first moment that belongs to none any more."""
        return None if self.end is None else self.moment(self.end).replace(tzinfo=ZoneInfo(self.timezone))

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        return check_timezone(name)


class PartitionsConfig(ConfigBlock):
    """Which partitions a pipeline has, and which rows belong to each."""

    hourly: TimeConfig | None = Field(
        default=None, description="A partition for each hour: {start, end, timezone}."
    )
    daily: TimeConfig | None = Field(default=None, description="A partition for each day: {start, end, timezone}.")
    weekly: TimeConfig | None = Field(
        default=None, description="A partition for each week, from Sunday: {start, end, timezone}."
    )
    monthly: TimeConfig | None = Field(
        default=None, description="A partition for each month: {start, end, timezone}."
    )
    static: list[str] | None = Field(default=None, description="The list of keys, such as [de, en].")
    dynamic: bool = Field(default=False, description="Keys are added to Dagster over time.")
    column: str | None = Field(
        default=None,
        description=(
            "Column that determines the partition of a row. Alone: each of its values is a partition, which is "
            "added when the value first appears."
        ),
    )

    @field_validator(*TIME_KINDS)
    @classmethod
    def _are_whole(cls, times: TimeConfig | None, info: ValidationInfo) -> TimeConfig | None:
        """A start within a month would begin with the next one, and say so nowhere."""
        if times is None or info.field_name is None:
            return times
        for name, text in (("start", times.start), ("end", times.end)):
            if text is not None and (problem := _off_boundary(info.field_name, times.moment(text))):
                raise ValueError(f"`{name}` {text} {problem}")
        if times.end is not None and times.moment(times.end) <= times.moment(times.start):
            raise ValueError(f"`end` {times.end} must be after `start` {times.start}: there would be no partition")
        return times

    @field_validator("static")
    @classmethod
    def _are_keys(cls, keys: list[str] | None) -> list[str] | None:
        if keys is None:
            return None
        if not keys:
            raise ValueError("give at least one key")
        for key in keys:
            if problem := key_problem(key):
                raise ValueError(problem)
            if keys.count(key) > 1:
                raise ValueError(f"the key {key!r} is there twice")
        return keys

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> PartitionsConfig:
        given = [name for name in KINDS if getattr(self, name)]
        if len(given) > 1 or not (given or self.column):
            said = " and ".join(given) or "none"
            raise ValueError(f"give exactly one of {', '.join(KINDS)}, or column alone; here are {said}")
        return self

    @property
    def kind(self) -> str:
        """The field that says which partitions there are; of a column alone, `dynamic`."""
        return next((name for name in KINDS if getattr(self, name)), "dynamic")

    @property
    def by_value(self) -> bool:
        """Whether every value of the column is a partition."""
        return self.column is not None and self.kind == "dynamic" and not self.dynamic

    @property
    def is_time(self) -> bool:
        return self.kind in TIME_KINDS

    @property
    def times(self) -> TimeConfig:
        """The block of a kind of time."""
        times = getattr(self, self.kind)
        assert isinstance(times, TimeConfig)
        return times

    @property
    def timezone(self) -> str:
        return self.times.timezone if self.is_time else "UTC"

    @property
    def in_words(self) -> str:
        """For people, in a few words."""
        if self.by_value:
            return f"one for every value of the column {self.column}"
        if self.is_time:
            words = f"{self.kind} from {self.times.start}"
            words += f" to {self.times.end}" if self.times.end else ""
            words += f", {self.times.timezone}"
        else:
            words = self.kind if self.static is None else f"{len(self.static):,} static ones"
        return words + (f", by the column {self.column}" if self.column else "")

    def window(self, key: str) -> Window:
        """See Partitions.window."""
        zone = ZoneInfo(self.timezone)
        start = self._start(key, zone)
        if self.kind == "hourly":
            # By the clock of UTC: an hour of the wall clock may come twice, or not at all.
            return Window(start, (start.astimezone(UTC) + timedelta(hours=1)).astimezone(zone))
        if self.kind == "monthly":
            years, month = divmod(start.month, 12)
            return Window(start, start.replace(year=start.year + years, month=month + 1))
        return Window(start, start + timedelta(days=7 if self.kind == "weekly" else 1))

    def _start(self, key: str, zone: ZoneInfo) -> datetime:
        written = KEY_FORMATS[self.kind]
        for form in (written, f"{written}%z") if self.kind == "hourly" else (written,):
            try:
                found = datetime.strptime(key, form)
            except ValueError:
                continue
            return found.replace(tzinfo=zone) if found.tzinfo is None else found.astimezone(zone)
        raise ValueError(f"{key!r} is no key of a {self.kind} partition; they look like {_EXAMPLES[self.kind]}")


def _off_boundary(kind: str, moment: datetime) -> str | None:
    """Why no partition of that kind begins at a moment, naming those before and after it; None if one does."""
    before = moment.replace(minute=0, second=0, microsecond=0)
    if kind != "hourly":
        before = before.replace(hour=0)
    if kind == "weekly":
        before -= timedelta(days=before.isoweekday() % 7)
    if kind == "monthly":
        before = before.replace(day=1)
    if before == moment:
        return None
    try:
        after = before + timedelta(**_LENGTHS[kind])
    except OverflowError:
        return f"is not where {_BEGIN[kind]}: give {before.date()}"
    if kind == "monthly":
        after = after.replace(day=1)
    near = [found.isoformat(timespec="minutes").removesuffix("T00:00") for found in (before, after)]
    return f"is not where {_BEGIN[kind]}: give {near[0]} or {near[1]}"


def key_problem(key: str) -> str | None:
    """Why a text can be no partition key, None if it can."""
    if not key:
        return "a key must not be empty"
    if _REFUSED.search(key):
        return f"the key {key!r} holds ... or a control character, which Dagster takes in no key"
    if len(quote(key, safe="")) > _LONGEST:
        return f"the key {key[:40] + '…'!r} is too long for the name of a folder: {_LONGEST} bytes percent-encoded"
    return None
