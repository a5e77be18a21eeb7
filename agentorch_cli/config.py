"""Where settings come from: defaults < user file < project file < environment < flags.

Each value remembers its source, so that `config show` can tell. Values from files must
have the right type; texts from the environment and from flags are converted. All errors
of all sources are found before any is told. The settings themselves are in `settings`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, get_args

from pydantic import BeforeValidator, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from agentorch_cli.core.durations import parse_duration, show_duration
from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.documents import Document, Format, load_document
from agentorch_cli.errors import InvalidConfig, InvalidFile, command
from agentorch_cli.sentences import explain, found
from agentorch_cli.settings import (
    LOCAL,
    PATHS,
    USER_FILE,
    Profile,
    Settings,
    find_setting,
    is_profile_name,
    is_secret,
    section_of,
    setting_names,
    user_config_path,
    variable,
)

__all__ = ["Settings", "example", "load_settings", "setting_names", "user_config_path", "value_for_file"]

PROJECT_FILE: Final = "agentorch.toml"
CONFIG_VARIABLE: Final = "AGENTORCH_CONFIG"

OTHER_VARIABLES: Final = {
    "DATABASE_URL": "database.url",
    "WEBSOCKET_URL": "gateway.hub_url",
    "AGENTORCH_LOG_LEVEL": "logging.level",
    "AGENTORCH_LOG_FORMAT": "logging.format",
}
"""Names that are common elsewhere; the AGENTORCH_ name of the same setting goes first."""

OTHER_FLAGS: Final = {
    "database.url": "--database-url",
    "logging.level": "--log-level",
    "logging.format": "--log-format",
}
"""Flags that are not called like the last part of their setting."""


def load_settings(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    config_path: Path | None = None,
    cwd: Path | None = None,
    pairs: Mapping[str, str] | None = None,
) -> Settings:
    """Lays the sources over each other. Flags are `{"gateway.port": 3002}`; None was not given. `pairs` are
    those of `--set`: any setting, as text.

    An environment variable that is empty was not given either. `config_path` (else AGENTORCH_CONFIG)
    takes the place of `agentorch.toml` in `cwd`, and must exist.
    Raises InvalidConfig with every error that was found, each with its file and line.
    """
    environ, cwd = environ or {}, cwd or Path.cwd()
    layers = _Layers(cwd)
    layers.file(user_config_path(), must_exist=False)
    named = named_file(config_path, environ)
    layers.file(cwd / (named or PROJECT_FILE), must_exist=named is not None, is_found=named is None)
    layers.environment(environ)
    layers.set_flags(pairs or {})
    layers.flags(flags or {})
    return layers.settings()


def flag(name: str) -> str:
    """The flag of a setting, as it is typed."""
    return OTHER_FLAGS.get(name) or f"--{name.rpartition('.')[2].replace('_', '-')}"


def named_file(config_path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file that somebody named in place of the project's."""
    return config_path or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)


def value_for_file(name: str, text: str) -> Any:
    """What a file says where a person types `text` as the value of a setting. Raises InvalidConfig.

    A duration stays as it was typed; numbers and true or false lose their quotes; a list of names
    may be typed as one.
    """
    info = find_setting(name)
    adapter, where = _adapter(info), f"the value of {name}"
    if name in PATHS:
        return text
    for candidate in _as_toml(text, is_text=info.annotation is str or _choices(info)):
        try:
            adapter.validate_python(candidate, strict=True)
        except ValidationError:
            continue
        return candidate
    try:
        return adapter.validate_python(text)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise InvalidConfig(f"{where} {explain(fault, hide=is_secret(name))}") from error


def _as_toml(text: str, *, is_text: bool) -> list[Any]:
    """What the text may stand for, the likeliest first."""
    try:
        value = tomllib.loads(f"x = {text}")
        found = [value["x"]] if len(value) == 1 else []
    except (ValueError, RecursionError):
        found = []
    if is_text:
        return [one for one in found if isinstance(one, list)] + [text]
    return [*found, text]


def _choices(info: FieldInfo) -> bool:
    choices = get_args(info.annotation)
    return bool(choices) and all(isinstance(choice, str) for choice in choices)


@dataclass
class _Layers:
    """The values so far, each source over the ones before it."""

    cwd: Path
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    profiles: dict[str, Profile] = field(default_factory=dict)

    def file(self, path: Path, *, must_exist: bool, is_found: bool = False) -> None:
        """One file. `is_found`: it lies in the working directory and nobody named it, so it may not
        say where tokens are sent: it may have come with somebody else's project.
        """
        try:
            if not must_exist and not path.is_file():
                return
            document = load_document(path, Format.TOML)
        except PermissionError:  # a folder above it is closed to us: as good as not there
            return
        except InvalidFile as error:
            raise InvalidConfig(error.message, hint=error.hint, where=error.where, **error.details) from error
        for key, value in document.value.items():
            if is_found and key in ("server", "ca", "profiles") and value:
                self._refuse_in(
                    document, (key,), "may stand only in your own file: agentorch profile add writes it there"
                )
            elif key == "profiles":
                self._take_profiles(document, value)
            elif key not in Settings.model_fields:
                meant = did_you_mean(key, Settings.model_fields)
                self._refuse_in(document, (key,), f"unknown setting{meant}")
            elif (section := section_of(Settings.model_fields[key])) is None:
                self._take_from_file(document, (key,), value)
            elif not isinstance(value, dict):
                self._refuse_in(document, (key,), "must be a table", key)
            else:
                for name, inner in value.items():
                    if name in section.model_fields:
                        self._take_from_file(document, (key, name), inner)
                    else:
                        hint = did_you_mean(name, section.model_fields)
                        self._refuse_in(document, (key, name), f"unknown setting{hint}", key)

    def environment(self, environ: Mapping[str, str]) -> None:
        known = {variable(name): name for name in setting_names()}
        for key, name in [*OTHER_VARIABLES.items(), *known.items()]:
            if environ.get(key):
                self._take(name, environ[key], f"environment {key}", key)
        sections = tuple(
            variable(name) + "_" for name, info in Settings.model_fields.items() if section_of(info)
        )
        for key in sorted(environ):
            if key.startswith(sections) and key not in known:
                self._refuse(f"environment {key}", f"unknown setting{did_you_mean(key, known)}")

    def flags(self, flags: Mapping[str, Any]) -> None:
        for name, value in flags.items():
            if value is not None:
                find_setting(name)
                self._take(name, value, f"flag {flag(name)}", None)

    def set_flags(self, pairs: Mapping[str, str]) -> None:
        """`--set gateway.port=3002`: what has no flag of its own."""
        for name, value in pairs.items():
            find_setting(name)
            self._take(name, value, f"flag --set {name}", name)

    def settings(self) -> Settings:
        if self.errors:
            first = self.errors[0]
            more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
            raise InvalidConfig(
                first["message"] + more,
                where=first["where"],
                fix=command("explain", f"config.{first['name']}") if first["name"] else None,
                errors=self.errors,
            )
        tree: dict[str, Any] = {}
        for name, value in self.values.items():
            section, _, key = name.rpartition(".")
            (tree.setdefault(section, {}) if section else tree)[key] = value
        return Settings.model_validate(tree).with_origins(self.origins).with_profiles(self.profiles)

    def _take_profiles(self, document: Document, tables: Any) -> None:
        base = Path(document.name).parent
        for name, table in tables.items() if isinstance(tables, dict) else ():
            place = ("profiles", name)
            if not is_profile_name(name) or name == LOCAL:
                self._refuse_in(document, place, "is no name for a profile", "profiles")
                continue
            try:
                profile = Profile.model_validate(table, strict=True)
            except ValidationError as error:
                for fault in error.errors(include_url=False):
                    step = tuple(part for part in fault["loc"] if isinstance(part, str))
                    message = explain(fault)
                    if fault["type"] == "extra_forbidden":
                        message = f"unknown key{did_you_mean(step[-1], Profile.model_fields)}"
                    self._refuse_in(document, (*place, *step), message, "profiles")
                continue
            files = {
                key: str(base / Path(value).expanduser())
                for key in ("ca", "token_file")
                if (value := getattr(profile, key))
            }
            self.profiles[name] = profile.model_copy(update=files)
        if not isinstance(tables, dict):
            self._refuse_in(
                document, ("profiles",), "must be a table of profiles: [profiles.NAME]", "profiles"
            )

    def _take_from_file(self, document: Document, path: tuple[str, ...], value: Any) -> None:
        where, place = document.where(path), document.locate(path)
        line = f":{place.line}" if place else ""
        base = Path(document.name).parent
        before = len(self.errors)
        self._set(".".join(path), value, f"file {document.name}{line}", where, base, strict=True)
        if len(self.errors) > before:
            self._locate(document, path)

    def _take(self, name: str, value: Any, origin: str, key: str | None) -> None:
        self._set(name, value, origin, origin if key else f"{origin} ({name})", self.cwd, strict=False)

    def _set(self, name: str, value: Any, origin: str, where: str, base: Path, *, strict: bool) -> None:
        if name in PATHS:
            self._set_path(name, value, origin, where, base)
            return
        try:
            self.values[name] = _adapter(find_setting(name)).validate_python(value, strict=strict)
        except ValidationError as error:
            self._refuse(where, explain(error.errors(include_url=False)[0], hide=is_secret(name)), name)
        else:
            self.origins.setdefault(name, []).append((origin, self.values[name]))

    def _set_path(self, name: str, value: Any, origin: str, where: str, base: Path) -> None:
        if not isinstance(value, str | Path) or "\0" in str(value):
            self._refuse(where, f"must be a path, not {found(value)}", name)
        elif str(value):
            self.values[name] = (base / Path(value).expanduser()).absolute()
            self.origins.setdefault(name, []).append((origin, self.values[name]))
        else:  # empty: the default again, whatever the layers below say
            self.values.pop(name, None)
            self.origins.pop(name, None)

    def _refuse(self, where: str, message: str, name: str = "") -> None:
        """Note what is wrong; `name` is the setting, or the section, that it is about."""
        self.errors.append({"where": where, "message": message, "name": name})

    def _refuse_in(self, document: Document, path: tuple[str, ...], message: str, name: str = "") -> None:
        """The same for a place in a file, with its line."""
        self._refuse(document.where(path), message, name)
        self._locate(document, path)

    def _locate(self, document: Document, path: tuple[str, ...]) -> None:
        """Add the line of the last error; not where it may hold a password."""
        place = document.locate(path)
        if place is not None and not is_secret(".".join(path)):
            source = document.lines.line(place.line)
            self.errors[-1] |= {"line": place.line, "column": place.column, "source": source}
        self.errors[-1]["field"] = ".".join(path)


def example() -> str:
    """The text of `config.example.toml`: every setting, commented out, with its default and its meaning."""
    lines = [
        "# Every setting of agentorch with its default. Remove the # in front of those that you change.",
        f"# Read from ./{PROJECT_FILE} or --config FILE, and below it from the user's {USER_FILE}.",
        f"# Environment variables ({variable('gateway.port')}) and flags go before files.",
        '# Durations are seconds, or texts such as "30s", "5m", "2h", "1d".',
    ]
    for name, info in Settings.model_fields.items():
        section = section_of(info)
        if section is None:
            lines += ["", f"# {info.description}", f'# {name} = ""']
            continue
        lines += ["", "", f"# {section.__doc__}", f"[{name}]"]
        for inner, inner_info in section.model_fields.items():
            lines += ["", f"# {_described(inner_info)}", f"# {inner} = {_toml(inner_info.default)}"]
    return "\n".join(lines) + "\n"


def _adapter(info: FieldInfo) -> TypeAdapter[Any]:
    annotation: Any = info.annotation
    return TypeAdapter(Annotated[annotation, *info.metadata] if info.metadata else annotation)


def _described(info: FieldInfo) -> str:
    text = " ".join((info.description or "").split())
    if _choices(info):
        text += f" One of {', '.join(get_args(info.annotation))}."
    if any(isinstance(item, BeforeValidator) and item.func is parse_duration for item in info.metadata):
        shown = show_duration(info.default)
        text += " Seconds." if shown.removesuffix("s").isdigit() else f" Seconds ({shown})."
    return text


def _toml(value: Any) -> str:
    if value is None:
        return '""'
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)
