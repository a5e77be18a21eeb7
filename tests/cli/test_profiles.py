"""Servers by name: where they are kept, which one is chosen, and where the token comes from."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from agentorch_cli.cli import userfile
from agentorch_cli.cli.target import target_of
from agentorch_cli.config import example, load_settings
from agentorch_cli.errors import InvalidConfig, UsageError
from agentorch_cli.settings import user_config_path

Run = Callable[..., Any]


pytestmark = pytest.mark.usefixtures("home")


def settings(**flags: Any) -> Any:
    return load_settings(flags, {}, None, Path.cwd())


def test_a_profile_is_kept_chosen_listed_and_forgotten(agentorch: Run, home: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("AGENTORCH_DATA_DIR")
    (home / "t").write_text("ao_x\n")
    (home / "t").chmod(0o600)
    added = agentorch(
        "profile", "add", "prod", "--url", "wss://h:1", "--token-file", "t", "--ca", "ca.pem", "--json"
    )
    agentorch("profile", "add", "lab", "--url", "ws://127.0.0.1:2", "--token-env", "LAB", "--insecure")
    used = agentorch("profile", "use", "prod")
    listed = json.loads(agentorch("profile", "list", "--json").out)
    shown = agentorch("config", "show", "server")

    assert json.loads(added.out)["token_file"] == str(home / "t")
    assert "wss://h:1 (profile prod)" in used.err and "wss://h:1 (profile prod)" in shown.err
    assert [(one["name"], one["active"], one["url"]) for one in listed] == [
        ("lab", False, "ws://127.0.0.1:2"),
        ("prod", True, "wss://h:1"),
    ]
    target = target_of(settings())
    assert (target.url, target.name, target.ca, target.token) == (
        "wss://h:1",
        "prod",
        home / "ca.pem",
        "ao_x",
    )
    assert "ao_x" not in user_config_path().read_text() and "ao_x" not in repr(target)
    assert agentorch("profile", "remove", "prod").code == 8  # it is in use
    agentorch("profile", "use", "local")
    assert not settings().is_remote
    assert agentorch("profile", "remove", "prod").code == 0
    assert list(settings().profiles) == ["lab"]
    assert agentorch("profile", "use", "prod").code == 7
    assert agentorch("profile", "remove", "prod").code == 7


@pytest.mark.parametrize(
    ("name", "url"),
    [("local", "wss://h"), ("a b", "wss://h"), ("-a", "wss://h"), ("a", "http://h"), ("a", "wss://"),
     ("a", "wss://user:password@h"), ("a", "wss://h?token=x"), ("a", "b")],
)  # fmt: skip
def test_what_is_no_profile_is_refused(agentorch: Run, name: str, url: str) -> None:
    outcome = agentorch("profile", "add", "--url", url, "--", name)

    assert outcome.code == 2
    assert not user_config_path().exists()


def test_the_rest_of_the_file_stays_as_it_was() -> None:
    path = user_config_path()
    path.parent.mkdir(parents=True)
    before = "# mine\n" + example() + '\n[gateway]\nport = 5 # here\n\n[profiles."x.y"]\nurl = "ws://x"\n'
    path.write_text(before.replace("[gateway]\n", "", 1).replace("[gateway]\n", "", 0))

    text = path.read_text()
    userfile.put_profile("a", {"url": "wss://a"})
    userfile.use("a")
    userfile.put_profile("a", {"url": "wss://b"})
    userfile.use("local")
    userfile.drop_profile("a")
    after = path.read_text()

    assert [line for line in text.splitlines() if line.strip()] == [
        line for line in after.splitlines() if line.strip() and not line.startswith('server = "local"')
    ]


@pytest.mark.parametrize(
    ("before", "changed", "without"),
    [
        (
            '[profiles.a]  # A\nurl = "wss://a"  # far\ntoken_env = "T"\n\n# the next\n[profiles.b]\nurl = "wss://c"\n',
            '[profiles.a]  # A\nurl = "wss://b"  # far\n\n# the next\n[profiles.b]\nurl = "wss://c"\n',
            '\n# the next\n[profiles.b]\nurl = "wss://c"\n',
        ),
        (
            'profiles = { a = { url = "wss://a" }, b = { url = "wss://c" } }\n',
            'profiles = { a = { url = "wss://b" }, b = { url = "wss://c" } }\n',
            'profiles = { b = { url = "wss://c" } }\n',
        ),
        (
            '[profiles]\na.url = "wss://a"\nb.url = "wss://c"\n',
            '[profiles]\na.url = "wss://b"\nb.url = "wss://c"\n',
            '[profiles]\nb.url = "wss://c"\n',
        ),
        (
            '[profiles]\na = { url = "wss://a" } # x\nb = { url = "wss://c" }\n',
            '[profiles]\na = { url = "wss://b" } # x\nb = { url = "wss://c" }\n',
            '[profiles]\nb = { url = "wss://c" }\n',
        ),
    ],
    ids=["headers", "inline", "dotted", "both"],
)
def test_a_profile_is_changed_where_it_stands(before: str, changed: str, without: str) -> None:
    path = user_config_path()
    path.parent.mkdir(parents=True)
    path.write_text(before)

    userfile.put_profile("a", {"url": "wss://b"})
    assert path.read_text() == changed
    userfile.drop_profile("a")
    assert path.read_text() == without
    assert list(userfile.profiles()) == ["b"]


@given_settings(deadline=None)  # the disk is waited for
@given(st.lists(st.tuples(st.sampled_from(["a", "b.c", "d-e"]), st.booleans()), max_size=8))
def test_any_order_of_changes_leaves_what_was_meant(steps: list[tuple[str, bool]]) -> None:
    user_config_path().parent.mkdir(parents=True, exist_ok=True)
    user_config_path().write_text("[engine]\nretries = 1\n")
    expected: dict[str, Any] = {}
    for number, (name, is_added) in enumerate(steps):
        if is_added:
            userfile.put_profile(name, {"url": f"wss://h:{number + 1}"})
            expected[name] = {"url": f"wss://h:{number + 1}"}
        elif name in expected:
            userfile.drop_profile(name)
            del expected[name]
        userfile.use(name)
    assert userfile.profiles() == expected
    tree = tomllib.loads(user_config_path().read_text())
    assert tree["engine"] == {"retries": 1}
    assert tree.get("server") == (steps[-1][0] if steps else None)


def test_a_project_may_not_say_where_tokens_go(home: Path) -> None:
    for text in ('server = "wss://evil"\n', '[profiles.prod]\nurl = "wss://evil"\n', 'ca = "evil.pem"\n'):
        (home / "agentorch.toml").write_text(text)
        with pytest.raises(InvalidConfig, match="only in your own file"):
            settings()
    (home / "agentorch.toml").write_text('server = "wss://mine"\n')
    assert load_settings({}, {}, Path("agentorch.toml"), home).server == "wss://mine"  # it was named


def test_flags_go_before_variables_and_those_before_the_chosen_profile(
    agentorch: Run, monkeypatch: Any
) -> None:
    userfile.put_profile("p", {"url": "wss://p"})
    userfile.use("p")
    assert target_of(settings()).url == "wss://p"
    environ = {"AGENTORCH_SERVER": "wss://e", "AGENTORCH_TOKEN": " t "}
    with_variable = load_settings({}, environ, None, Path.cwd())
    assert (target_of(with_variable, environ).url, target_of(with_variable, environ).token) == (
        "wss://e",
        "t",
    )
    assert load_settings({"server": "wss://f"}, environ, None, Path.cwd()).server == "wss://f"
    assert agentorch("--server", "wss://x", "--database-url", "postgresql://h/x", "status").code == 2


def test_a_database_that_is_named_goes_before_a_chosen_profile(agentorch: Run, desk: Any) -> None:
    userfile.put_profile("p", {"url": "wss://p"})
    userfile.use("p")
    desk.answers["agent.list"] = []

    assert agentorch("--data-dir", "d", "agent", "list").code == 0
    assert agentorch("--server", "local", "agent", "list").code == 0
    assert [method for method, _ in desk.calls] == ["agent.list"] * 2


def test_a_token_file_is_only_for_its_owner(home: Path) -> None:
    path = home / "token"
    path.write_text("ao_x")
    path.chmod(0o640)
    userfile.put_profile("p", {"url": "wss://p", "token_file": str(path)})
    userfile.use("p")
    with pytest.raises(InvalidConfig, match="read by others"):
        target_of(settings())
    path.chmod(0o600)
    assert target_of(settings()).token == "ao_x"
    path.write_text("")
    with pytest.raises(InvalidConfig, match="is empty"):
        target_of(settings())
    path.unlink()
    with pytest.raises(InvalidConfig, match="cannot be read"):
        target_of(settings())


def test_a_profile_that_is_not_there_is_named_with_where_it_was_chosen(
    agentorch: Run, monkeypatch: Any
) -> None:
    monkeypatch.delenv("AGENTORCH_DATA_DIR", raising=False)
    monkeypatch.setenv("AGENTORCH_SERVER", "prd")
    userfile.put_profile("prod", {"url": "wss://p"})

    outcome = agentorch("agent", "list")

    assert outcome.code == 2
    assert 'did you mean "prod"' in outcome.err and "environment AGENTORCH_SERVER" in outcome.err


@pytest.mark.parametrize("words", [["serve"], ["init-db"], ["doctor"], ["demo"]])
def test_commands_of_this_machine_say_so(agentorch: Run, words: list[str], tmp_path: Path) -> None:
    outcome = agentorch("--server", "wss://h:1", *words)

    assert outcome.code == UsageError.exit_code
    assert "the chosen server is wss://h:1" in outcome.err and "--server local" in outcome.err
