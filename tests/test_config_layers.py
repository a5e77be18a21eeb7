"""Every setting from every layer: each goes before the ones below it, and says where it came from.

The table is made from the settings themselves, so a new one is in it by itself.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import tomli_w
from annotated_types import Ge, Gt, Le, Lt

from agentorch_cli.config import (
    Settings,
    flag,
    load_settings,
    setting_names,
    user_config_path,
    value_for_file,
)
from agentorch_cli.core.durations import parse_duration
from agentorch_cli.settings import PATHS, find_setting, variable

LAYERS = ("default", "user", "project", "environment", "set", "flag")
ONLY_MINE = ("server", "ca")
"""A file that is merely found may not say these: the project's file is named then."""

BEGINNINGS = {
    "database.url": "postgresql://h",
    "gateway.hub_url": "ws://h",
    "server": "wss://h",
    "tracing.endpoint": "http://h",
}
"""Of settings that are addresses."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with folders for the two files."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "AGENTORCH_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    user_config_path().parent.mkdir(parents=True)
    (tmp_path / "project").mkdir()
    return tmp_path


def values(name: str) -> Iterator[Any]:
    """As many different values of a setting as there are: as a file may say them."""
    info = find_setting(name)
    if name in PATHS:
        yield from (f"/nowhere/{number}" for number in itertools.count())
    elif any(getattr(item, "func", None) is parse_duration for item in info.metadata):
        yield from (
            word
            for number in itertools.count(1)
            for word in (f"{number}m7s", 7 * number + 0.5, f"{number}h1s")
        )
    elif any(getattr(getattr(item, "func", None), "__name__", "") == "_joined" for item in info.metadata):
        yield from (word for number in itertools.count() for word in ([f"A{number}", "B"], f"C{number},D"))
    elif choices := [choice for choice in get_args(info.annotation) if isinstance(choice, str)]:
        at = choices.index(info.default) + 1
        yield from itertools.cycle([*choices[at:], *choices[:at]])
    elif info.annotation is bool:
        yield from itertools.cycle([not info.default, info.default])
    elif info.annotation is str:
        yield from (f"{BEGINNINGS.get(name, 'name')}{number}" for number in itertools.count())
    else:
        low, high = bounds(info.metadata)
        if info.annotation is int:
            yield from (number for number in range(int(low) + 1, int(high)) if number != info.default)
        yield from (low + (high - low) * part / 64 for part in range(1, 64))


def bounds(metadata: list[Any]) -> tuple[float, float]:
    low, high = 0.0, 1e6
    for item in itertools.chain(*(getattr(one, "metadata", [one]) for one in metadata)):
        match item:
            case Ge(ge=bound) | Gt(gt=bound):
                low = float(bound)  # type: ignore[arg-type]
            case Le(le=bound) | Lt(lt=bound):
                high = float(bound)  # type: ignore[arg-type]
    return low, high


def as_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_file(name: str, value: Any) -> str:
    section, _, key = name.rpartition(".")
    return tomli_w.dumps({section: {key: value}} if section else {key: value})


def value_of(settings: Settings, name: str) -> Any:
    found: Any = settings
    for step in name.split("."):
        found = getattr(found, step)
    return found


def understood(name: str, value: Any) -> Any:
    """What this value alone comes to."""
    return value_of(load_settings({}, {variable(name): as_text(value)}), name)


@pytest.mark.parametrize("name", setting_names())
def test_each_layer_goes_before_the_ones_below(name: str, home: Path) -> None:
    project = home / "project" / "agentorch.toml"
    said = dict(zip(LAYERS[1:], values(name), strict=False))
    expected = {layer: understood(name, value) for layer, value in said.items()}
    default = value_of(Settings(), name)
    assert expected["user"] != default, "the first value has to be none of the default"

    for top in range(len(LAYERS)):
        given = {layer: said[layer] for layer in LAYERS[1 : top + 1]}
        user_config_path().write_text(as_file(name, given["user"]) if "user" in given else "")
        project.write_text(as_file(name, given["project"]) if "project" in given else "")

        settings = load_settings(
            {name: as_text(given["flag"])} if "flag" in given else {},
            {variable(name): as_text(given["environment"])} if "environment" in given else {},
            project if name in ONLY_MINE else None,
            project.parent,
            {name: as_text(given["set"])} if "set" in given else {},
        )

        line = 2 if "." in name else 1
        origins = {
            "default": "default",
            "user": f"file {user_config_path()}:{line}",
            "project": f"file {project}:{line}",
            "environment": f"environment {variable(name)}",
            "set": f"flag --set {name}",
            "flag": f"flag {flag(name)}",
        }
        assert value_of(settings, name) == expected.get(LAYERS[top], default)
        assert settings.origin(name) == origins[LAYERS[top]]
        assert [origin for origin, _ in settings.origins(name)] == [
            origins[layer] for layer in reversed(LAYERS[: top + 1])
        ]
        others = [other for other in setting_names() if other != name and settings.origin(other) != "default"]
        assert others == []


@pytest.mark.parametrize("name", setting_names())
def test_what_a_file_is_given_for_a_typed_value_means_the_same(name: str, home: Path) -> None:
    for value, _ in zip(values(name), range(5), strict=False):
        text = as_text(value)
        project = home / "project" / "agentorch.toml"
        project.write_text(as_file(name, value_for_file(name, text)))

        settings = load_settings({}, {}, project, project.parent)

        assert value_of(settings, name) == understood(name, value)


def test_a_chosen_profile_is_below_the_flag_and_the_variable(home: Path) -> None:
    user_config_path().write_text('server = "lab"\n[profiles.lab]\nurl = "wss://lab"\n')

    assert load_settings({}, {}).server == "lab"
    assert load_settings({}, {"AGENTORCH_SERVER": "wss://e"}).server == "wss://e"
    assert load_settings({"server": "wss://f"}, {"AGENTORCH_SERVER": "wss://e"}).server == "wss://f"
    assert load_settings({}, {"AGENTORCH_SERVER": "lab"}).profiles["lab"].url == "wss://lab"


def test_the_command_line_tells_every_layer_of_a_setting(home: Path) -> None:
    user_config_path().write_text("[gateway]\nport = 1\n")
    project = home / "project"
    (project / "agentorch.toml").write_text("# ours\n[gateway]\nport = 2\n")

    told = subprocess.run(
        [sys.executable, "-m", "agentorch_cli", "config", "show", "--origin", "gateway.port", "--set",
         "gateway.port=4"],
        cwd=project,
        env={"HOME": str(home), "AGENTORCH_GATEWAY_PORT": "3", "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout  # fmt: skip

    assert [line.split("\t")[1:] for line in told.splitlines()[1:]] == [
        ["4", "flag --set gateway.port"],
        ["3", "environment AGENTORCH_GATEWAY_PORT"],
        ["2", f"file {project / 'agentorch.toml'}:3"],
        ["1", f"file {user_config_path()}:2"],
        ["3001", "default"],
    ]
