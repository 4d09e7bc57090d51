"""The `partitions` block of a pipeline file, and the time windows of its keys."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import quote
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationInfo, field_validator, model_validator

from batch_assets.core.config_block import ConfigBlock
from batch_assets.core.pipeline.timezones import check_timezone

PLACEHOLDER = "{partition}"
"""Replaced by the partition key in the path of a dataset."""
TIME_KINDS = ("hourly", "daily", "weekly", "monthly")
KINDS = (*TIME_KINDS, "static", "dynamic")
"""The fields that can define the partitions. At most one of them is set."""
KEYS = "keys"
"""The division into partitions whose keys are no time windows."""
# The key formats of Dagster's time partitions. If an hour occurs twice, the key of the second ends in its offset.
KEY_FORMATS = {"hourly": "%Y-%m-%d-%H:%M", "daily": "%Y-%m-%d", "weekly": "%Y-%m-%d", "monthly": "%Y-%m-%d"}
_EXAMPLES = {"hourly": "2026-01-31-13:00", "daily": "2026-01-31", "weekly": "2026-02-01", "monthly": "2026-02-01"}
_BEGIN = {
    "hourly": "an hour begins",
    "daily": "a day begins",
    "weekly": "a week begins, on Sunday",
    "monthly": "a month begins",
}
# For a month: long enough to end in the next month.
_LENGTHS = {"hourly": {"hours": 1}, "daily": {"days": 1}, "weekly": {"days": 7}, "monthly": {"days": 31}}
# The most bytes of a percent-encoded key. With `partition=` before it, it is the name of a folder, for which file
# systems allow 255 bytes.
_LONGEST = 240
# Dagster does not allow these in a key.
_REFUSED = re.compile(r"\.\.\.|[\x00-\x1f]")


@dataclass(frozen=True)
class Window:
    """The time window of a partition, in its time zone. `start` is inclusive, and `end` is exclusive."""

    start: datetime
    end: datetime


class Partitions(Protocol):
    """The partitions of a pipeline, as far as the core needs to know them.

    Attributes:
        division: hourly, daily, weekly or monthly, or the schedule of other time windows; KEYS for other keys.
        column: The column of the dataset that says which partition a row belongs to; `None` if files, a query or
            an asset do.
        is_time: Whether keys are time windows.
        timezone: The time zone of these windows, and of dates without one.
    """

    @property
    def division(self) -> str: ...
    @property
    def column(self) -> str | None: ...
    @property
    def is_time(self) -> bool: ...
    @property
    def timezone(self) -> str: ...

    def window(self, key: str) -> Window:
        """Return the time window of a key.

        Raises:
            ValueError: When it is not a key of these partitions.
        """


class TimeConfig(ConfigBlock):
    """The hours, days, weeks or months that are partitions."""

    start: str = Field(
        description="Beginning of the first partition, such as 2026-01-01; hourly also 2026-01-01T13:00."
    )
    end: str | None = Field(default=None, description="Exclusive end. Default: no end.")
    timezone: str = Field(default="UTC", description="Time zone of the partitions, such as Europe/Berlin.")

    @field_validator("start", "end", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        return value.isoformat() if isinstance(value, date) else value  # YAML turns it into a date

    @field_validator("start", "end")
    @classmethod
    def _is_a_time(cls, text: str | None) -> str | None:
        if text is None:
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a date like 2026-01-01") from None
        if moment.tzinfo is not None:
            raise ValueError(f"{text!r} has an offset: leave it out and set `timezone`")
        return text

    def moment(self, text: str) -> datetime:
        """Return `start` or `end` as wall clock time in the time zone."""
        return datetime.fromisoformat(text)

    @property
    def since(self) -> datetime:
        """The first moment that belongs to a partition."""
        return self.moment(self.start).replace(tzinfo=ZoneInfo(self.timezone))

    @property
    def until(self) -> datetime | None:
        """The first moment after all partitions; `None` if they have no end."""
        return None if self.end is None else self.moment(self.end).replace(tzinfo=ZoneInfo(self.timezone))

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        return check_timezone(name)


class PartitionsConfig(ConfigBlock):
    """The partitions of a pipeline, and which rows belong to each."""

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
        """Refuse a start within a month, because Dagster would silently begin with the next month."""
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
                raise ValueError(f"the key {key!r} is listed twice")
        return keys

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> PartitionsConfig:
        kinds = [name for name in KINDS if getattr(self, name)]
        if len(kinds) > 1 or not (kinds or self.column):
            fields = " and ".join(kinds) or "none"
            raise ValueError(f"give exactly one of {', '.join(KINDS)}, or column alone; got {fields}")
        return self

    @property
    def kind(self) -> str:
        """The field that defines the partitions; `dynamic` for a column alone."""
        return next((name for name in KINDS if getattr(self, name)), "dynamic")

    @property
    def division(self) -> str:
        """See `Partitions`. Lists, added keys and values of a column do not differ: each row has the same key."""
        return self.kind if self.is_time else KEYS

    @property
    def by_value(self) -> bool:
        """Whether every value of the column is a partition."""
        return self.column is not None and self.kind == "dynamic" and not self.dynamic

    @property
    def is_time(self) -> bool:
        return self.kind in TIME_KINDS

    @property
    def times(self) -> TimeConfig:
        """The block of the time partitions."""
        times = getattr(self, self.kind)
        assert isinstance(times, TimeConfig)
        return times

    @property
    def timezone(self) -> str:
        return self.times.timezone if self.is_time else "UTC"

    @property
    def as_text(self) -> str:
        """A short description, for texts."""
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
        """Return the time window of a key.

        Raises:
            ValueError: When it is not a key of these partitions.
        """
        zone = ZoneInfo(self.timezone)
        start = self._start(key, zone)
        if self.kind == "hourly":
            # Added in UTC, because a wall clock hour may occur twice or not at all.
            return Window(start, (start.astimezone(UTC) + timedelta(hours=1)).astimezone(zone))
        if self.kind == "monthly":
            years, month = divmod(start.month, 12)
            return Window(start, start.replace(year=start.year + years, month=month + 1))
        return Window(start, start + timedelta(days=7 if self.kind == "weekly" else 1))

    def _start(self, key: str, zone: ZoneInfo) -> datetime:
        usual = KEY_FORMATS[self.kind]
        for format_ in (usual, f"{usual}%z") if self.kind == "hourly" else (usual,):
            try:
                start = datetime.strptime(key, format_)
            except ValueError:
                continue
            return start.replace(tzinfo=zone) if start.tzinfo is None else start.astimezone(zone)
        raise ValueError(f"{key!r} is not a key of a {self.kind} partition; keys look like {_EXAMPLES[self.kind]}")


def _off_boundary(kind: str, moment: datetime) -> str | None:
    """Why no partition of that kind begins at a moment, with the nearest ones; `None` if one does."""
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
    near = [nearest.isoformat(timespec="minutes").removesuffix("T00:00") for nearest in (before, after)]
    return f"is not where {_BEGIN[kind]}: give {near[0]} or {near[1]}"


def key_problem(key: str) -> str | None:
    """Return why a text cannot be a partition key, or `None` if it can."""
    if not key:
        return "a key must not be empty"
    if _REFUSED.search(key):
        return f"the key {key!r} contains ... or a control character, which Dagster does not allow in keys"
    if len(quote(key, safe="")) > _LONGEST:
        return f"the key {key[:40] + '…'!r} is too long for the name of a folder: {_LONGEST} bytes percent-encoded"
    return None
