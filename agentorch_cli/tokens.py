"""Tokens: how they look, what they may do. What is kept of one is its hash.

    ao_<id>_<43 letters>_<6 letters>

A prefix and a checksum let scanners find a token in a repository or a log, and let the door turn
a mistyped one away without a question to the database. The secret part is 256 random bits, so a
plain SHA-256 is as good as a slow hash: there is nothing to guess, and a thousand agents that
reconnect at once do not wait for each other's hashing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from collections.abc import Iterable
from typing import Final

PREFIX: Final = "ao_"
LETTERS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH: Final = 10
SECRET_LENGTH: Final = 43
"""Letters of 62 that hold 256 bits."""
CHECK_LENGTH: Final = 6

PATTERN: Final = re.compile(rf"ao_[0-9A-Za-z]{{{ID_LENGTH}}}_[0-9A-Za-z]{{{SECRET_LENGTH}}}_[0-9A-Za-z]{{6}}")

SCOPES: Final = ("read", "submit", "vote", "admin")
"""Besides these: `agent:NAME`, and `agent:PREFIX*`."""

AGENT: Final = "agent:"
MAX_SCOPE: Final = 220


def make() -> tuple[str, str]:
    """A new token: its id, and the whole of it."""
    token_id = "".join(secrets.choice(LETTERS) for _ in range(ID_LENGTH))
    secret = _letters(secrets.randbits(256), SECRET_LENGTH)
    head = f"{PREFIX}{token_id}_{secret}"
    return token_id, f"{head}_{checksum(head)}"


def is_wellformed(token: str) -> bool:
    """Whether it could be one: shape and checksum."""
    if PATTERN.fullmatch(token) is None:
        return False
    head, _, check = token.rpartition("_")
    return checksum(head) == check


def digest(token: str) -> str:
    """What is stored of it, and looked up."""
    return hashlib.sha256(token.encode()).hexdigest()


def checksum(head: str) -> str:
    """CRC-32 of what stands before it."""
    return _letters(zlib.crc32(head.encode()), CHECK_LENGTH)


def scope_fault(scope: str) -> str | None:
    """What is wrong with the name of a scope; None where nothing is."""
    if scope in SCOPES:
        return None
    name = scope.removeprefix(AGENT)
    if name == scope:
        return f'"{scope[:100]}" is no scope: there are {", ".join(SCOPES)}, agent:NAME and agent:PREFIX*'
    if not name or len(scope) > MAX_SCOPE or not name.isprintable():
        return f'"{scope[:100]}" names no agent'
    if "*" in name[:-1]:
        return f'"{scope[:100]}" has a * that is not its end'
    return None


def allows(scopes: Iterable[str], needed: str) -> bool:
    """Whether these scopes hold the one that is needed; `admin` holds all but the agents'."""
    held = set(scopes)
    return needed in held or "admin" in held


def allows_agent(scopes: Iterable[str], agent_id: str) -> bool:
    """Whether the bearer may be this agent."""
    for scope in scopes:
        name = scope.removeprefix(AGENT)
        if name == scope:
            continue
        if name == agent_id or (name.endswith("*") and agent_id.startswith(name[:-1])):
            return True
    return False


def _letters(number: int, length: int) -> str:
    found = []
    for _ in range(length):
        number, rest = divmod(number, len(LETTERS))
        found.append(LETTERS[rest])
    return "".join(reversed(found))
