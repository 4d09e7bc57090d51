"""Types that hold every value of several types, where those that Arrow picks do not."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

_MOST_DIGITS = 38  # of decimal128
# The digits of whole numbers as Arrow counts them when it casts to a decimal.
_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}


def holding_all(unified: pa.Schema, schemas: Sequence[pa.Schema], beyond_int64: Collection[str]) -> pa.Schema:
    """Return columns with types that hold all values.

    Args:
        unified: The columns as Arrow unifies them.
        schemas: The columns of each file.
        beyond_int64: The columns with whole numbers that are too large for int64.

    Raises:
        pyarrow.ArrowInvalid: When no decimal has enough digits.
    """
    for position, field in enumerate(unified):
        if pa.types.is_signed_integer(field.type) and field.name in beyond_int64:
            unified = unified.set(position, field.with_type(pa.decimal128(_DIGITS[64] + 1, 0)))
        if _may_lack_digits(field.type):
            places = [(schema, schema.get_field_index(field.name)) for schema in schemas]
            types = {schema.field(at).type for schema, at in places if at >= 0}
            if len(types) > 1:
                unified = unified.set(position, field.with_type(_holding(field.type, types)))
    return unified


def _may_lack_digits(type_: pa.DataType) -> bool:
    return any(is_kind(type_) for is_kind in (pa.types.is_decimal, pa.types.is_floating, pa.types.is_nested))


def _holding(unified: pa.DataType, types: Collection[pa.DataType]) -> pa.DataType:
    decimals = [type_ for type_ in types if pa.types.is_decimal(type_)]
    if pa.types.is_floating(unified) and decimals:
        return pa.float64()  # Arrow has no cast from decimals to short floats, or loses digits
    if pa.types.is_decimal(unified):
        scale = max([unified.scale, *(type_.scale for type_ in decimals)])
        whole = [type_.precision - type_.scale for type_ in decimals]
        whole += [_digits(type_) for type_ in types if pa.types.is_integer(type_)]
        precision = max([unified.precision, max(whole) + scale])
        return unified if precision <= unified.precision else _decimal(precision, scale)
    if pa.types.is_struct(unified):
        structs = [type_ for type_ in types if pa.types.is_struct(type_)]
        return pa.struct([_field(field, structs) for field in unified])
    if pa.types.is_list(unified):
        items = {type_.value_type for type_ in types if pa.types.is_list(type_)}
        return pa.list_(unified.value_field.with_type(_holding(unified.value_type, items)))
    return unified


def _field(field: pa.Field, structs: Collection[pa.DataType]) -> pa.Field:
    types = {struct.field(field.name).type for struct in structs if struct.get_field_index(field.name) >= 0}
    return field.with_type(_holding(field.type, types))


def _digits(type_: pa.DataType) -> int:
    return _DIGITS[type_.bit_width] + int(type_ == pa.uint64())


def _decimal(precision: int, scale: int) -> pa.DataType:
    return (pa.decimal128 if precision <= _MOST_DIGITS else pa.decimal256)(precision, scale)
