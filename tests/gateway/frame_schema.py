"""Enough of JSON Schema 2020-12 to check frames, so that the schema is tested by something that
knows nothing of the models it was made from.

A keyword that is not known here is an error: the schema may not say what nobody checks.
"""

from __future__ import annotations

import math
import re
from typing import Any

from agentorch_cli.frames import json_schema

SCHEMA: dict[str, Any] = json_schema()

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
NOTES = {"title", "description", "default", "discriminator", "$schema", "$defs"}


def faults(schema: dict[str, Any], value: Any, root: dict[str, Any], path: str = "") -> list[str]:
    """What is wrong with the value; empty where it fits."""
    found: list[str] = []
    for keyword, wanted in schema.items():
        if keyword in NOTES:
            continue
        found += _check(keyword, wanted, schema, value, root, path)
    return found


def _check(keyword: str, wanted: Any, schema: Any, value: Any, root: Any, path: str) -> list[str]:
    here = path or "/"
    match keyword:
        case "$ref":
            target: Any = root
            for step in wanted.removeprefix("#/").split("/"):
                target = target[step]
            return faults(target, value, root, path)
        case "oneOf" | "anyOf":
            tries = [faults(one, value, root, path) for one in wanted]
            fitting = sum(not one for one in tries)
            if fitting == 0 or (keyword == "oneOf" and fitting != 1):
                return [f"{here}: {fitting} of the {keyword} fit: {tries}"]
            return []
        case "type":
            fits = isinstance(value, TYPES[wanted]) and (wanted == "boolean" or not isinstance(value, bool))
            return [] if fits else [f"{here}: is no {wanted}"]
        case "const":
            return [] if value == wanted and type(value) is type(wanted) else [f"{here}: is not {wanted!r}"]
        case "enum":
            return [] if value in wanted else [f"{here}: is none of {wanted}"]
        case "required":
            missing = [key for key in wanted if isinstance(value, dict) and key not in value]
            return [f"{here}: has no {key}" for key in missing]
        case "properties":
            return [
                fault
                for key, one in wanted.items()
                if isinstance(value, dict) and key in value
                for fault in faults(one, value[key], root, f"{path}/{key}")
            ]
        case "additionalProperties":
            assert wanted is True, "frames ignore keys they do not know"
            return []
        case "items":
            items = value if isinstance(value, list) else []
            return [f for i, item in enumerate(items) for f in faults(wanted, item, root, f"{path}/{i}")]
        case "minLength" | "maxLength" | "minItems" | "maxItems":
            kind = str if "Length" in keyword else list
            if not isinstance(value, kind):
                return []
            fits = len(value) >= wanted if keyword.startswith("min") else len(value) <= wanted
            return [] if fits else [f"{here}: {keyword} is {wanted}, not {len(value)}"]
        case "minimum" | "maximum":
            if not isinstance(value, int | float):
                return []
            fits = math.isfinite(value) and (value >= wanted if keyword == "minimum" else value <= wanted)
            return [] if fits else [f"{here}: {keyword} is {wanted}, not {value}"]
        case "pattern":
            fits = not isinstance(value, str) or re.search(wanted, value) is not None
            return [] if fits else [f"{here}: does not match {wanted}"]
        case _:
            raise AssertionError(f"the schema uses {keyword}, which is not checked here")
