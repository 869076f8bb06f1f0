"""Writes crates/chat/tests/data/json-schema-cases.json: schemas, values, and whether Python's jsonschema accepts them.

Needs: pip install jsonschema rfc3339-validator fqdn isoduration rfc3987. Run from the repository root.
A value with "narrower" is valid, but generation keeps to fewer forms on purpose; the text says which.
"""

import json
from pathlib import Path

from jsonschema import Draft7Validator, Draft202012Validator

G = []  # (keyword, schema, values)


def case(keyword, schema, *values, draft=Draft202012Validator):
    G.append((keyword, schema, values, draft))


class Narrower:
    def __init__(self, value, why):
        self.value, self.why = value, why


OPEN = "an object that declares properties is closed unless the schema says otherwise"
INTEGER = "integers are written without a fraction"
DECIMALS = "a multiple of a decimal is written with all its decimals, or as an integer"
ORDER = "properties are written in the order of the schema"
ALL = [None, True, False, 0, -1, 3.5, "", "text", [], [1], {}, {"a": 1}]

for name in ["null", "boolean", "number", "integer", "string", "array", "object"]:
    case("type", {"type": name}, *ALL)
case("type", {"type": ["string", "null"]}, *ALL)
case("type", {"type": "integer"}, 12, -7, 0, "12", 1.5, Narrower(1.0, INTEGER))
case("type", {"type": "number"}, 12, -7.25, 1e10, 1.5e-7, "1")
case("type", {}, *ALL)
case("type", {"minLength": 2, "minimum": 5}, "a", "ab", 4, 5, None, [])
case("enum", {"enum": ["red", "green", 5, None, [1, "x"], {"k": [True]}, 2.5]},
     "red", "blue", 5, 6, None, False, [1, "x"], [1], {"k": [True]}, {"k": [False]}, {}, 2.5, 2)
case("enum", {"type": "string", "enum": ["a", "b\"\\\n", "日本", "a b"]}, "a", "b\"\\\n", "日本", "a b", "c", "")
case("enum", {"type": "integer", "enum": [1, 10, 100]}, 1, 10, 100, 1000, 11)
case("enum", {"enum": ["a/b", "\u0007", "\u007f", "\u2028", "🙂", "\r\n\t\b\f", "</think>", "<|im_end|>"]},
     "a/b", "\u0007", Narrower("\u007f", "U+007F is written as an escape"), "\u2028", "🙂", "\r\n\t\b\f", "</think>", "<|im_end|>", "a", "\u0008")
case("const", {"const": "x"}, "x", "y", "", None)
case("const", {"const": {"a": [1, 2]}}, {"a": [1, 2]}, {"a": [2, 1]}, {"a": [1, 2], "b": 1})
case("const", {"const": 10}, 10, 1, 100, "10")
case("properties", {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}},
     {}, {"a": 1}, {"b": "x"}, {"a": 1, "b": "x"}, {"a": "x"}, {"b": 1}, Narrower({"a": 1, "c": 2}, OPEN),
     Narrower({"b": "x", "a": 1}, ORDER))
case("properties", {"type": "object", "properties": {"a b\"c": {"const": 1}, "": {"type": "null"}, "名": {"type": "boolean"}}},
     {"a b\"c": 1}, {"a b\"c": 2}, {"": None}, {"": 1}, {"名": True}, {"名": 0})
case("required", {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"]},
     {}, {"b": 1}, {"a": 1}, {"a": 1, "b": 2})
case("required", {"type": "object", "required": ["z"]}, {}, {"z": 1}, {"y": 1}, {"z": None, "y": 2})
case("additionalProperties", {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False},
     {}, {"a": 1}, {"b": 1}, {"a": 1, "b": 1})
case("additionalProperties", {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": True},
     {"a": 1, "b": 1}, {"b": []}, {"a": "x"})
case("additionalProperties", {"type": "object", "additionalProperties": {"type": "integer"}},
     {}, {"x": 1}, {"x": 1, "y": 2}, {"x": "1"}, {"x": 1, "y": None})
case("additionalProperties", {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "integer"}},
     {"a": "x", "n": 1}, {"a": 1}, {"n": "x"})
case("patternProperties", {"type": "object", "patternProperties": {"^n_": {"type": "integer"}, "^s_": {"type": "string"}},
                           "additionalProperties": False},
     {}, {"n_a": 1}, {"s_a": "x"}, {"n_a": "x"}, {"other": 1}, {"n_a": 1, "s_b": "y"})
case("patternProperties", {"type": "object", "patternProperties": {"^\\d+$": {"type": "boolean"}}},
     {"12": True}, {"12": 1}, {"x": 1})
case("minProperties", {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                       "additionalProperties": False, "minProperties": 1}, {}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2})
case("minProperties", {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2},
     {}, {"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3})
case("maxProperties", {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2},
     {}, {"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3})
case("maxProperties", {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                       "additionalProperties": False, "maxProperties": 1}, {}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2})
case("items", {"type": "array", "items": {"type": "integer"}}, [], [1], [1, 2, 3], ["x"], [1, None])
case("items", {"type": "array", "items": {"type": "array", "items": {"type": "boolean"}}}, [], [[]], [[True], [False, True]], [[1]], [True])
case("items", {"type": "array", "items": False}, [], [1])
case("items", {"type": "array", "items": [{"type": "integer"}, {"type": "string"}]}, [1, "x"], ["x", 1], [1, "x", None], [1], draft=Draft7Validator)
case("additionalItems", {"type": "array", "items": [{"type": "integer"}], "additionalItems": {"type": "string"}},
     [], [1], [1, "x", "y"], [1, 2], ["x"], draft=Draft7Validator)
case("additionalItems", {"type": "array", "items": [{"type": "integer"}], "additionalItems": False}, [1], [1, 2], draft=Draft7Validator)
case("prefixItems", {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
     [], [1], [1, "x"], [1, "x", 2], ["x"])
case("prefixItems", {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "boolean"}, "minItems": 2},
     [1], [1, True], [1, True, False], [1, 2])
case("minItems", {"type": "array", "items": {"type": "integer"}, "minItems": 2}, [], [1], [1, 2], [1, 2, 3])
case("maxItems", {"type": "array", "items": {"type": "integer"}, "maxItems": 2}, [], [1], [1, 2], [1, 2, 3])
case("maxItems", {"type": "array", "maxItems": 0}, [], [1])
case("minItems", {"type": "array", "minItems": 1, "maxItems": 1}, [], [None], [1, 2])
case("minLength", {"type": "string", "minLength": 2}, "", "a", "ab", "abc", "é", "éé", "🙂", "🙂🙂", "日本")
case("maxLength", {"type": "string", "maxLength": 2}, "", "a", "ab", "abc", "éé", "ééé", "🙂🙂", "🙂🙂🙂", "\n\t")
case("maxLength", {"type": "string", "minLength": 3, "maxLength": 3}, "ab", "abc", "abcd", "日本語")
case("pattern", {"type": "string", "pattern": "^[A-Z]{2}\\d{3}$"}, "AB123", "AB12", "ab123", "xAB123", "AB1234", "")
case("pattern", {"type": "string", "pattern": "b+"}, "b", "abc", "ac", "xbbby")
case("pattern", {"type": "string", "pattern": "^(foo|ba[rz])?$"}, "", "foo", "bar", "baz", "ba", "foobar")
case("pattern", {"type": "string", "pattern": "^a.c$"}, "abc", "a\nc", "ac", "a日c")
case("pattern", {"type": "string", "pattern": "^\\s\\S$"}, " x", "\tx", "xx", "  ", " \n")
case("pattern", {"type": "string", "pattern": "^[^\\s\"]+$", "maxLength": 3}, "abc", "a c", "a\"", "", "abcd")
case("pattern", {"type": "string", "pattern": "^\\u65e5\\x41$"}, "日A", "日B")
case("pattern", {"type": "string", "pattern": "^\"q\\\\u\"$"}, "\"q\\u\"", "q")
case("pattern", {"type": "string", "pattern": "^[\\w.-]+@[\\w-]+\\.[a-z]{2,4}$"}, "a.b@c-d.org", "a@b", "@b.org")
case("pattern", {"type": "string", "pattern": "^ab|cd$"}, "abx", "xcd", "xab", "cdx", "ab")
case("format", {"type": "string", "format": "date"}, "2024-02-29", "2023-02-29", "1900-02-29", "2000-02-29", "2024-04-31", "2024-13-01", "2024-1-1", "x")
case("format", {"type": "string", "format": "date", "pattern": "^20"}, "2024-02-29", "1999-01-01", "20")
case("format", {"type": ["string", "null"], "format": "time"}, "10:20:30Z", None, "x")
case("format", {"type": "string", "format": "date-time"}, "2024-02-01T10:20:30Z", "2024-02-01T10:20:30.5+02:00", "2024-02-01", "x")
case("format", {"type": "string", "format": "ipv4"}, "1.2.3.4", "256.1.1.1", "1.2.3", "255.255.255.255")
case("format", {"type": "string", "format": "ipv6"}, "::1", "2001:db8::ff", "1:2:3:4:5:6:7:8", "1:2", "g::1")
case("format", {"type": "string", "format": "uuid"}, "123e4567-e89b-12d3-a456-426614174000", "123e4567", "x")
case("format", {"type": "string", "format": "email"}, "a@b.org", "nothing")
case("format", {"type": "string", "format": "hostname"}, "example.org", "a-b.c", "-a.org")
case("format", {"type": "string", "format": "time"}, "10:20:30Z", "25:00:00Z", "10:20")
case("format", {"type": "string", "format": "duration"}, "P1DT2H", "PT5M", "P", "5M")
case("format", {"type": "string", "format": "uri"}, "https://example.org/a?b=c#d", "mailto:a@b.org", "no scheme")
case("minimum", {"type": "integer", "minimum": 5}, 4, 5, 6, 50, 100000, -5)
case("minimum", {"type": "integer", "minimum": -12}, -13, -12, -1, 0, 7)
case("minimum", {"type": "number", "minimum": 1.5}, 1.4, 1.5, 1.50001, 2, 100, -2)
case("maximum", {"type": "integer", "maximum": 120}, 121, 120, 119, 9, 0, -1000, 1000)
case("maximum", {"type": "number", "maximum": -0.5}, -0.5, -0.51, -0.49, 0, -3)
case("minimum", {"type": "integer", "minimum": 1, "maximum": 14}, 0, 1, 9, 10, 14, 15, 140)
case("minimum", {"type": "number", "minimum": 0, "maximum": 1}, 0, 0.5, 1, 1.01, -0.1)
case("exclusiveMinimum", {"type": "integer", "exclusiveMinimum": 5}, 5, 6)
case("exclusiveMinimum", {"type": "number", "exclusiveMinimum": 0}, 0, 0.001, 1, -1)
case("exclusiveMaximum", {"type": "number", "exclusiveMaximum": 10}, 10, 9.999, -5, 11)
case("exclusiveMaximum", {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 3}, 0, 1, 2, 3)
case("multipleOf", {"type": "integer", "multipleOf": 7}, 0, 7, 14, 15, 700, 1)
case("multipleOf", {"type": "number", "multipleOf": 0.25}, 0.25, Narrower(1.5, DECIMALS), -3.75, 0.3, 2)
case("multipleOf", {"type": "integer", "minimum": 10, "maximum": 30, "multipleOf": 10}, 0, 10, 15, 20, 30, 40)
case("anyOf", {"anyOf": [{"type": "integer", "minimum": 3}, {"type": "string", "maxLength": 2}]}, 3, 2, "ab", "abc", None)
case("anyOf", {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
               "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {}, {"a": 1}, {"b": 1}, {"a": 1, "b": 2}, {"a": "x"})
case("anyOf", {"anyOf": [{"type": "object", "properties": {"t": {"const": 1}, "x": {"type": "string"}}, "required": ["t"]},
                         {"type": "object", "properties": {"t": {"const": 2}, "y": {"type": "integer"}}, "required": ["t", "y"]}]},
     {"t": 1}, {"t": 1, "x": "s"}, {"t": 2}, {"t": 2, "y": 3}, {"t": 3}, Narrower({"t": 1, "y": 3}, OPEN))
case("allOf", {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 6}]}, 2, 3, 6, 7, "x")
case("allOf", {"type": "object", "allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                                           {"properties": {"b": {"type": "string"}}, "required": ["b"]}]},
     {"a": 1, "b": "x"}, {"a": 1}, {"b": "x"}, {"a": 1, "b": 2}, {"a": 1, "b": "x", "c": 3})
case("oneOf", {"oneOf": [{"type": "integer"}, {"type": "string"}]}, 1, "x", None, [])
case("oneOf", {"oneOf": [{"type": "object", "properties": {"k": {"const": "a"}, "v": {"type": "integer"}}, "required": ["k", "v"]},
                         {"type": "object", "properties": {"k": {"const": "b"}}, "required": ["k"]}]},
     {"k": "a", "v": 1}, {"k": "a"}, {"k": "b"}, {"k": "c"})
case("$ref", {"type": "object", "properties": {"a": {"$ref": "#/$defs/p/q~1r"}}, "$defs": {"p/q~1r": {}, "p": {"q/r": {"type": "integer"}}}},
     {"a": 1}, {"a": "x"})
case("$ref", {"type": "object", "properties": {"a": {"$ref": "#/$defs/n%20m", "description": "d"}}, "$defs": {"n m": {"type": "null"}}},
     {"a": None}, {"a": 1})
case("$ref", {"$ref": "#/definitions/t", "definitions": {"t": {"type": "integer", "minimum": 2}}}, 2, 1, "x")
case("$ref", {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["v"]},
     {"v": 1}, {"v": 1, "next": None}, {"v": 1, "next": {"v": 2, "next": {"v": 3}}}, {"v": 1, "next": {}}, {"v": 1, "next": {"v": "x"}})
case("$defs", {"$defs": {"tree": {"type": "object", "properties": {"name": {"type": "string"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
                                  "required": ["name"]}}, "$ref": "#/$defs/tree"},
     {"name": "a"}, {"name": "a", "kids": []}, {"name": "a", "kids": [{"name": "b", "kids": [{"name": "c"}]}]}, {"name": "a", "kids": [{}]}, {})
case("definitions", {"definitions": {"i": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/definitions/i"}}, [1], ["x"], [])
case("$anchor", {"type": "array", "items": {"$ref": "#here"}, "$defs": {"x": {"$anchor": "here", "type": "boolean"}}}, [True], [1])
case("$ref", {"type": "object", "properties": {"a": {"type": "string"}, "b": {"$ref": "#/properties/a"}}}, {"b": "x"}, {"b": 1})
case("$ref", {"type": "array", "items": {"$ref": "#/$defs/i", "minimum": 5}, "$defs": {"i": {"type": "integer"}}}, [5], [4], ["x"])
case("additionalProperties", {"type": "object", "properties": {"k": {"type": "integer"}}, "required": ["k"], "additionalProperties": {"type": "string"}},
     {"k": 1, "日本": "x", "a b": "\n"}, {"k": 1, "z": 2}, {"z": "x"})
case("type", {"type": "string"}, "\u00e9\u65e5🙂", "tab\tquote\"slash/back\\", "{\"a\": [1]}", "<|tool_call_end|>")
case("items", {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "array", "items": {"type": "string"}}}, "required": ["x"]}},
     [{"x": []}, {"x": ["a", "b"]}], [{}], [{"x": [1]}])
case("anyOf", {"type": ["object", "null"], "anyOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"type": "null"}]},
     None, {"a": 1}, {"a": None}, {}, 1)
case("allOf", {"type": "object", "properties": {"a": {"type": "integer"}}, "allOf": [{"properties": {"a": {"minimum": 3}}}, {"required": ["a"]}]},
     {"a": 3}, {"a": 2}, {})
case("allOf", {"allOf": [{"$ref": "#/$defs/a"}], "description": "d", "$defs": {"a": {"type": "object", "properties": {"x": {"const": 1}}, "required": ["x"]}}},
     {"x": 1}, {}, {"x": 2}, Narrower({"x": 1, "y": 2}, OPEN))
# MFJS, the vendor's dialect, in one schema.
case("MFJS", {"type": "object", "description": "d",
              "properties": {"mode": {"type": "string", "enum": ["fast", "slow"], "default": "fast"},
                             "level": {"type": "integer", "enum": [1, 2, 3]}, "ratio": {"type": "number", "minimum": 0, "maximum": 1},
                             "who": {"anyOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]},
                             "list": {"type": "array", "items": {"$ref": "#/$defs/person"}, "minItems": 1, "maxItems": 2},
                             "map": {"type": "object", "additionalProperties": {"type": "number"}}},
              "required": ["mode", "list"], "additionalProperties": False,
              "$defs": {"person": {"type": "object", "properties": {"name": {"type": "string"}, "boss": {"$ref": "#/$defs/person"}},
                                   "required": ["name"], "additionalProperties": False}}},
     {"mode": "fast", "list": [{"name": "x"}]}, {"mode": "fast", "list": []}, {"mode": "odd", "list": [{"name": "x"}]},
     {"mode": "slow", "level": 2, "ratio": 0.5, "who": None, "list": [{"name": "x", "boss": {"name": "y"}}], "map": {"k": 1.5}},
     {"mode": "slow", "level": 4, "list": [{"name": "x"}]}, {"mode": "slow", "ratio": 2, "list": [{"name": "x"}]},
     {"mode": "slow", "list": [{"name": "x"}, {"name": "y"}, {"name": "z"}]}, {"mode": "slow", "list": [{"name": "x", "age": 3}]},
     {"mode": "slow", "list": [{"name": "x"}], "map": {"k": "v"}}, {"list": [{"name": "x"}]}, {"mode": "fast"})

out = []
for keyword, schema, values, draft in G:
    validator = draft(schema, format_checker=draft.FORMAT_CHECKER)
    rows = []
    for value in values:
        row = {}
        if isinstance(value, Narrower):
            row["narrower"] = value.why
            value = value.value
        row = {"value": value, "valid": validator.is_valid(value), **row}
        assert row["valid"] or "narrower" not in row, (schema, value)
        rows.append(row)
    assert any(r["valid"] for r in rows), schema
    out.append({"keyword": keyword, "schema": schema, "values": rows})

lines = ",\n".join(json.dumps(group, ensure_ascii=False) for group in out)
Path("crates/chat/tests/data/json-schema-cases.json").write_text("[\n" + lines + "\n]\n", encoding="utf-8")
print(len(out), "schemas,", sum(len(g["values"]) for g in out), "values")
