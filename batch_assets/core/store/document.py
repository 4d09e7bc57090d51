"""A JSON document under the root, as a typed value."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Document(BaseModel):
    """A JSON object under the root. Values are not converted: a number in quotes is not accepted as a number."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    omitted_if_none: ClassVar[frozenset[str]] = frozenset()
    """Fields that are written only if they have a value."""

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialize(self)
        return {
            name: value for name, value in fields.items() if value is not None or name not in self.omitted_if_none
        }
