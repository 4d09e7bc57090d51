"""The Arrow types that columns may have, and those that they are read as."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from batch_assets.core.io.parquet import unknown_zone


def plain_type(type_: pa.DataType) -> pa.DataType:
    """Return the type to read a column as.

    Few of Arrow's functions accept view types, so they become the plain types. UUIDs become text, and booleans
    of a byte each booleans. Other extension types become the type they are stored as.
    """
    if is_extension(type_):
        named = {"arrow.uuid": pa.string(), "arrow.bool8": pa.bool_()}
        return named.get(type_.extension_name) or plain_type(type_.storage_type)
    if pa.types.is_run_end_encoded(type_):
        return plain_type(type_.value_type)
    if pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_dictionary(type_):
        return pa.dictionary(type_.index_type, plain_type(type_.value_type), type_.ordered)
    if pa.types.is_list(type_) or pa.types.is_list_view(type_):
        return pa.list_(_plain_field(type_.value_field))
    if pa.types.is_large_list(type_) or pa.types.is_large_list_view(type_):
        return pa.large_list(_plain_field(type_.value_field))
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_plain_field(type_.value_field), type_.list_size)
    if pa.types.is_map(type_):
        return pa.map_(_plain_field(type_.key_field), _plain_field(type_.item_field), type_.keys_sorted)
    if pa.types.is_struct(type_):
        return pa.struct([_plain_field(inner) for inner in type_])
    return type_


def _plain_field(inner: pa.Field) -> pa.Field:
    return inner.with_type(plain_type(inner.type))


def goes_by_value(type_: pa.DataType) -> bool:
    """Whether a type must be converted value by value, because `cast` is wrong for it or for a type nested in it.

    That is so for list views, runs and extension types such as UUIDs.
    """
    return holds(
        type_,
        lambda inner: (
            pa.types.is_list_view(inner)
            or pa.types.is_large_list_view(inner)
            or pa.types.is_run_end_encoded(inner)
            or is_extension(inner)
        ),
    )


def in_utc(type_: pa.DataType) -> pa.DataType:
    """Return a type with UTC in place of an unknown time zone."""
    if pa.types.is_timestamp(type_) and unknown_zone(type_) is not None:
        return pa.timestamp(type_.unit, "UTC")
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(in_utc(field.type)) for field in type_])
    if pa.types.is_list(type_):
        return pa.list_(type_.value_field.with_type(in_utc(type_.value_type)))
    return type_


def is_extension(type_: pa.DataType) -> bool:
    """Whether a type is an extension of another type, such as UUIDs."""
    return isinstance(type_, pa.BaseExtensionType)


def holds(type_: pa.DataType, is_match: Callable[[pa.DataType], bool]) -> bool:
    """Whether a type, or one nested in it, matches."""
    nested = (type_.field(position).type for position in range(type_.num_fields))
    return is_match(type_) or any(holds(inner, is_match) for inner in nested)


def may_hold_floats(type_: pa.DataType) -> bool:
    """Whether the type, or one nested in it, is a floating point number."""
    return holds(type_, pa.types.is_floating)
