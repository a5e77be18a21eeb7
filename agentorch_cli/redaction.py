"""Secrets taken out of text, wherever it goes: logs, errors, crash files, bundles.

Tokens are known by their shape; passwords by where they stand: in a URL, after `Bearer`, after a
word such as `password`. What is taken out is shown as `***`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "***"

SECRET_WORDS: Final = (
    "password",
    "passwd",
    "secret",
    "token",
    "api_key",
    "apikey",
    "private_key",
    "credential",
)

_TOKEN = re.compile(r"ao_[0-9A-Za-z]{6,}_[0-9A-Za-z]{20,}(?:_[0-9A-Za-z]+)?")
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{8,}")
_URL_PASSWORD = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/?#@'\"]*):[^\s/?#'\"]*@")
_NAMED = re.compile(
    r"(?i)([\"']?\b[\w-]*(?:" + "|".join(SECRET_WORDS) + r")[\"']?\s*[=:]\s*)"
    r"(\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s,;&\"'}\])]+)"
)
_PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)


def redact(text: str) -> str:
    """The text without what could open a door."""
    if "ao_" in text:
        text = _TOKEN.sub(f"ao_{HIDDEN}", text)
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text)
    lower = text.lower()
    if "bearer" in lower or "basic" in lower:
        text = _BEARER.sub(rf"\1\2{HIDDEN}", text)
    if any(word in lower for word in SECRET_WORDS):
        text = _NAMED.sub(_named, text)
    if "PRIVATE KEY" in text:
        text = _PEM.sub(HIDDEN, text)
    return text


def redact_value(value: Any, key: str = "") -> Any:
    """The same for a JSON value: what stands under a secret's name goes whole."""
    if isinstance(value, str):
        return HIDDEN if value and _is_secret(key) else redact(value)
    if isinstance(value, Mapping):
        return {name: redact_value(one, str(name)) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [redact_value(one) for one in value]
    return value


def _is_secret(key: str) -> bool:
    name = key.lower()
    return any(word in name for word in SECRET_WORDS) and not name.endswith(("_file", "_env", "_id", "s"))


def _named(found: re.Match[str]) -> str:
    value = found[2]
    if value[:1] in "\"'":
        return f"{found[1]}{value[0]}{HIDDEN}{value[0]}"
    return found[1] + HIDDEN
