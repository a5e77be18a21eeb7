"""Which server a command works against, and as whom: from a flag, a variable, or a profile."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agentorch_cli.config import PROJECT_FILE, named_file
from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.errors import InvalidConfig, UsageError, command
from agentorch_cli.settings import DEFAULT, LOCAL

if TYPE_CHECKING:
    from agentorch_cli.client.remote import Target
    from agentorch_cli.config import Settings
    from agentorch_cli.settings import Profile

TOKEN_VARIABLE = "AGENTORCH_TOKEN"  # noqa: S105  its name
TOKEN_FILE_VARIABLE = "AGENTORCH_TOKEN_FILE"  # noqa: S105
LARGEST_TOKEN = 10_000


def shown_server(settings: Settings) -> str | None:
    """The server for people: its address, and the name of the profile; None where there is none."""
    if not settings.is_remote:
        return None
    profile = _profile(settings)
    return f"{profile.url} (profile {settings.server})" if profile is not None else settings.server


def target_of(settings: Settings, environ: Mapping[str, str] = os.environ) -> Target:
    """The server of these settings, with the token. Raises InvalidConfig."""
    from agentorch_cli.client.remote import Target

    profile = _profile(settings)
    if profile is None:
        return Target(settings.server, None, settings.ca, read_token(environ))
    ca = settings.ca or (Path(profile.ca) if profile.ca else None)
    token = _token_of(settings.server, profile, environ)
    return Target(profile.url, settings.server, ca, token, profile.insecure)


def engine_of(settings: Settings, url: str, *, is_named: bool) -> Target:
    """Where an agent connects: the address that was named, or the chosen server, or the engine here."""
    from agentorch_cli.client.remote import Target, endpoint

    if is_named or not settings.is_remote:
        return Target(url, None, settings.ca, read_token())
    target = target_of(settings)
    return replace(target, url=endpoint(target.url, "agents"))


def read_token(environ: Mapping[str, str] = os.environ) -> str | None:
    """The token that the environment holds or names. Raises InvalidConfig."""
    if environ.get(TOKEN_VARIABLE):
        return environ[TOKEN_VARIABLE].strip()
    if environ.get(TOKEN_FILE_VARIABLE):
        return token_from(Path(environ[TOKEN_FILE_VARIABLE]))
    return None


def token_from(path: Path) -> str:
    """What a token file holds. Raises InvalidConfig where it cannot be read, or others can read it."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(LARGEST_TOKEN).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidConfig(f"the token file {path} cannot be read: {reason}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidConfig(f"the token file {path} can be read by others than you", fix=f"chmod 600 {path}")
    if not token:
        raise InvalidConfig(f"the token file {path} is empty")
    return token


def project_above(settings: Settings, folder: Path, environ: Mapping[str, str] = os.environ) -> str | None:
    """That a folder above this one is a project, whose settings and database are not used from here; None
    where that is not so, or where somebody said what to work against."""
    is_chosen = settings.is_remote or settings.database.url or settings.origin("data_dir") != DEFAULT
    if is_chosen or named_file(None, environ) is not None or (folder / PROJECT_FILE).exists():
        return None
    above = next((one / PROJECT_FILE for one in folder.parents if (one / PROJECT_FILE).is_file()), None)
    if above is None:
        return None
    return (
        f"this is about {settings.data_dir}, and not about the project in {above.parent}:"
        f" go there, or say --config {above}"
    )


def refuse_remote(settings: Settings, command: str, reason: str) -> None:
    """Raises UsageError where a server is chosen and the command is for this machine."""
    server = shown_server(settings)
    if server is not None:
        raise UsageError(
            f"{command} {reason}, and the chosen server is {server}",
            fix=f"agentorch --server {LOCAL} {command}",
        )


def _profile(settings: Settings) -> Profile | None:
    if "://" in settings.server:
        return None
    profile = settings.profiles.get(settings.server)
    if profile is None:
        raise InvalidConfig(
            f'there is no profile "{settings.server}"{did_you_mean(settings.server, settings.profiles)}',
            why=f"It was chosen by {settings.origin('server')}.",
            fix=command("profile", "add", settings.server, "--url", "wss://HOST:PORT"),
        )
    return profile


def _token_of(name: str, profile: Profile, environ: Mapping[str, str]) -> str | None:
    if profile.token_env:
        if not environ.get(profile.token_env):
            raise InvalidConfig(
                f"the profile {name} takes its token from {profile.token_env}, which is not set"
            )
        return environ[profile.token_env].strip()
    if profile.token_file:
        return token_from(Path(profile.token_file))
    return read_token(environ)
