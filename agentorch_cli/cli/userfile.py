"""Changes to the user's file of settings; the rest of it stays as it was, comments too (see `tomledit`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentorch_cli.cli import settingsfile, tomledit
from agentorch_cli.errors import InvalidConfig
from agentorch_cli.settings import Profile, user_config_path


def profiles() -> dict[str, dict[str, Any]]:
    """The profiles of the file."""
    found = _tree().get("profiles", {})
    return {name: table for name, table in found.items() if isinstance(table, dict)}


def chosen() -> str:
    """The server that the file chooses."""
    return str(_tree().get("server", ""))


def put_profile(name: str, table: dict[str, Any]) -> Path:
    """Write a profile, in place of what was known under its name. Raises InvalidConfig, NotAllowed."""
    from pydantic import ValidationError

    from agentorch_cli.sentences import explain

    try:
        Profile.model_validate(table, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise InvalidConfig(f"--{'-'.join(map(str, fault['loc']))} {explain(fault)}") from error

    return _change(lambda text, file: tomledit.put_table(text, ("profiles", name), table, file))


def drop_profile(name: str) -> Path:
    """Take a profile out."""
    return _change(lambda text, file: tomledit.drop_table(text, ("profiles", name), file))


def use(name: str) -> Path:
    """Choose the server that commands work against."""
    return _change(lambda text, file: tomledit.put(text, ("server",), name, file))


def _tree() -> dict[str, Any]:
    path = user_config_path()
    return tomledit.read(settingsfile.text_of(path).removeprefix(settingsfile.BOM), str(path))


def _change(edit: Callable[[str, str], str]) -> Path:
    """`edit` gets the text, and what errors call the file.

    Only its owner may read the file, where it is made now: addresses may hold passwords.
    """
    path = user_config_path()
    settingsfile.change(path, lambda text: edit(text, str(path)), is_private=True)
    return path
