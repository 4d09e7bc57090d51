"""The keywords of JSON Schema, draft 2020-12, by what they do.

Source: https://json-schema.org/draft/2020-12/json-schema-core and json-schema-validation
"""

from __future__ import annotations

TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")

ANNOTATIONS = frozenset(
    {
        *("$schema", "$id", "$defs", "definitions", "$comment", "title", "description", "default", "examples"),
        *("deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType", "contentSchema"),
    }
)
"""Keywords that do not restrict the value."""

OF_ALL_TYPES = frozenset(
    {
        *("$ref", "$dynamicRef", "$anchor", "$dynamicAnchor", "enum", "const", "anyOf", "oneOf", "allOf", "not"),
        *("if", "then", "else"),
    }
)
"""Keywords that restrict values of every type."""

_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
OF_TYPE = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "integer": _BOUNDS,
    "number": _BOUNDS,
    "array": frozenset(
        {
            *("items", "prefixItems", "additionalItems", "contains", "minContains", "maxContains"),
            *("minItems", "maxItems", "uniqueItems", "unevaluatedItems"),
        }
    ),
    "object": frozenset(
        {
            *("properties", "patternProperties", "additionalProperties", "propertyNames", "required"),
            *("minProperties", "maxProperties", "dependentRequired", "dependentSchemas", "dependencies"),
            "unevaluatedProperties",
        }
    ),
    "boolean": frozenset(),
    "null": frozenset(),
}
"""Keywords that restrict values of one type, by that type."""

FORMATS = (
    *("date", "date-time", "time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6"),
    *("uri", "uri-reference", "uri-template", "iri", "iri-reference", "uuid", "json-pointer"),
    *("relative-json-pointer", "regex"),
)
"""The formats that are checked. docs/results.md lists them."""
