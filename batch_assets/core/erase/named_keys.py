"""The row keys that a user names: a key that is a time or a number may be written in several forms."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from batch_assets.core.store.key_texts import key_texts, meant_by


@dataclass(frozen=True)
class NamedKeys:
    """Row keys as a user wrote them, and as they are compared.

    Attributes:
        forms: The texts that each key is compared as: what the user wrote, and each text of that value.
        types: The types of row keys.
        impossible: The keys that no value of any of the types is written as.
    """

    forms: dict[str, list[str]]
    types: Sequence[pa.DataType]
    impossible: frozenset[str]

    @classmethod
    def of(cls, keys: Sequence[str], types: Sequence[pa.DataType]) -> NamedKeys:
        """Read what a user wrote.

        Args:
            keys: What the user wrote.
            types: The types that row keys have in the submissions; none if there is no submission.
        """
        written = {key: [text for type_ in types for text in _forms(key, type_)] for key in keys}
        forms = {key: list(dict.fromkeys([key, *texts])) for key, texts in written.items()}
        impossible = frozenset(key for key, texts in written.items() if types and not texts)
        return cls(forms, types, impossible)

    @property
    def texts(self) -> list[str]:
        """All forms of all keys."""
        return list(dict.fromkeys(text for forms in self.forms.values() for text in forms))

    def unknown(self, texts: Collection[str]) -> list[str]:
        """Return the keys of which no form was found.

        Args:
            texts: The forms that were not found.
        """
        return [key for key, forms in self.forms.items() if all(form in texts for form in forms)]

    def problems(self, unknown: Collection[str], pipeline: str) -> Iterator[str]:
        """Yield a text about each unknown key that no row can have: its row may still be there.

        Args:
            unknown: The keys that were not found.
            pipeline: The name of the pipeline.
        """
        types = " or ".join(map(str, self.types))
        for key in unknown:
            if key in self.impossible:
                yield (
                    f"{key!r} is no row key of {pipeline}, whose keys have the type {types}: write it as the "
                    "results show it"
                )


def _forms(text: str, type_: pa.DataType) -> list[str]:
    """Return the texts of the row key that a text means; none if no value is written so."""
    try:
        value = meant_by(text, type_)
    except pa.ArrowNotImplementedError:
        return [text]
    if value is None:
        return []
    # Without a unit, the number of a duration is not its text: a column of texts may have it as another key.
    columns = key_texts(value)[: 2 if pa.types.is_duration(type_) else None]
    return [form for texts in columns for form in texts if form is not None]
