"""A column whose values are those of an enum."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Generic, TypeVar

from sqlalchemy import String, TypeDecorator

Member = TypeVar("Member", bound=StrEnum)


class EnumColumn(TypeDecorator[Member], Generic[Member]):
    """A column with the values of one enum. Any other value is an error when it is written or read."""

    impl = String
    cache_ok = True

    def __init__(self, kind: type[Member], length: int) -> None:
        super().__init__(length)
        self.kind = kind

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else self.kind(value).value

    def process_result_value(self, value: str | None, dialect: Any) -> Member | None:
        return None if value is None else self.kind(value)
