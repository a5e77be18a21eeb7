"""Changes to the user's configuration file that leave the rest of it, comments too, as it was.

The text is changed line by line, then read again and compared with what was meant: a file in a
form that this does not understand is left alone, and the person is told what to write.
"""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from agentorch_cli.errors import InvalidConfig, NotAllowed
from agentorch_cli.settings import Profile, user_config_path

_HEADER = re.compile(r"^\s*\[")
_SERVER = re.compile(r"^\s*server\s*=")


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
    text = _text()
    wanted = _read(text)
    wanted.setdefault("profiles", {})[name] = table
    block = f"[{_key(name)}]\n" + tomli_w.dumps(table)
    rest = _without(text, name).rstrip("\n")
    return _write(f"{rest}\n\n{block}" if rest else block, wanted)


def drop_profile(name: str) -> Path:
    """Take a profile out."""
    text = _text()
    wanted = _read(text)
    del wanted["profiles"][name]
    if not wanted["profiles"]:
        del wanted["profiles"]
    return _write(_without(text, name), wanted)


def use(name: str) -> Path:
    """Choose the server that commands work against."""
    text = _text()
    wanted = _read(text) | {"server": name}
    line = tomli_w.dumps({"server": name}).rstrip("\n")
    lines = text.splitlines()
    top = next((number for number, one in enumerate(lines) if _HEADER.match(one)), len(lines))
    at = next((number for number in range(top) if _SERVER.match(lines[number])), None)
    if at is None:
        lines.insert(0, line)
    else:
        lines[at] = line
    return _write("\n".join(lines) + "\n", wanted)


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
    try:
        return user_config_path().read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{user_config_path()} cannot be read: {error}") from error


def _read(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(f"{user_config_path()} is not valid TOML: {error}") from error


def _write(text: str, wanted: dict[str, Any]) -> Path:
    path = user_config_path()
    try:
        is_right = tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        is_right = False
    if not is_right:
        raise InvalidConfig(
            f"{path} is written in a way that this command cannot change",
            hint=f"change it by hand, so that it says: {tomli_w.dumps(wanted).strip()[:500]}",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as error:
        raise NotAllowed(f"{path} cannot be written: {error.strerror}") from error
    return path
