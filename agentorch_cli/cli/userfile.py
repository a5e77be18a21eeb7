"""Changes to the user's configuration file that leave the rest of it, comments too, as it was.

The text is changed line by line, then read again and compared with what was meant: a file in a
form that this does not understand is left alone, and the person is told what to write.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w

from agentorch_cli.cli import settingsfile, tomledit
from agentorch_cli.errors import InvalidConfig
from agentorch_cli.settings import Profile, user_config_path

_HEADER = re.compile(r"^\s*\[")


def profiles() -> dict[str, dict[str, Any]]:
    """The profiles of the file."""
    found = _read(_text()).get("profiles", {})
    return {name: table for name, table in found.items() if isinstance(table, dict)}


def chosen() -> str:
    """The server that the file chooses."""
    return str(_read(_text()).get("server", ""))


def put_profile(name: str, table: dict[str, Any]) -> Path:
    """Write a profile, in place of what was known under its name. Raises InvalidConfig, NotAllowed."""
    from pydantic import ValidationError

    from agentorch_cli.sentences import explain

    try:
        Profile.model_validate(table, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise InvalidConfig(f"--{'-'.join(map(str, fault['loc']))} {explain(fault)}") from error

    def edit(text: str) -> str:
        wanted = _read(text)
        wanted.setdefault("profiles", {})[name] = table
        block = f"[{_key(name)}]\n" + tomli_w.dumps(table)
        rest = _without(text, name).rstrip("\n")
        return _checked(f"{rest}\n\n{block}" if rest else block, wanted)

    return _change(edit)


def drop_profile(name: str) -> Path:
    """Take a profile out."""

    def edit(text: str) -> str:
        wanted = _read(text)
        del wanted["profiles"][name]
        if not wanted["profiles"]:
            del wanted["profiles"]
        return _checked(_without(text, name), wanted)

    return _change(edit)


def use(name: str) -> Path:
    """Choose the server that commands work against."""
    return _change(lambda text: tomledit.put(text, ("server",), name, str(user_config_path())))


def _key(name: str) -> str:
    return f"profiles.{name}" if "." not in name else f'profiles."{name}"'


def _without(text: str, name: str) -> str:
    """The text without the table of a profile."""
    headers = {f"[profiles.{name}]", f'[profiles."{name}"]', f"[profiles.'{name}']"}
    kept, is_inside = [], False
    for line in text.splitlines(keepends=True):
        if _HEADER.match(line):
            is_inside = line.partition("#")[0].strip().replace(" ", "") in headers
        if not is_inside:
            kept.append(line)
    return "".join(kept)


def _text() -> str:
    return settingsfile.text_of(user_config_path()).removeprefix(settingsfile.BOM)


def _read(text: str) -> dict[str, Any]:
    return tomledit.read(text, str(user_config_path()))


def _checked(text: str, wanted: dict[str, Any]) -> str:
    try:
        is_right = tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        is_right = False
    if not is_right:
        raise InvalidConfig(
            f"{user_config_path()} is written in a way that this command cannot change",
            hint=f"change it by hand, so that it says: {tomli_w.dumps(wanted).strip()[:500]}",
        )
    return text


def _change(edit: Callable[[str], str]) -> Path:
    """Only its owner may read the file, where it is made now: addresses may hold passwords."""
    path = user_config_path()
    settingsfile.change(path, edit, is_private=True)
    return path
