"""`agentorch config get | set | unset`: one key changes, all the rest of the file stays."""

from __future__ import annotations

import json
import os
import stat
import threading
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch_cli.cli import settingsfile, tomledit
from agentorch_cli.config import example, user_config_path
from agentorch_cli.errors import InvalidConfig, NotAllowed

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def nothing_chosen(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where data is kept is not said either: a file may say it."""
    monkeypatch.delenv("AGENTORCH_DATA_DIR")


MESSY = """\
# what this fleet is for
data_dir = 'here'   # not there

[ engine ]  # the loops
  retries   =   4      # more than usual
task_timeout = "5m"

# gateway comes last


[gateway]
# port = 3001
host = "::1"
"""


def test_a_value_changes_and_nothing_else_does(agentorch: Run, home: Path) -> None:
    file = home / "agentorch.toml"
    file.write_text(MESSY)

    assert agentorch("config", "set", "engine.retries", "7").code == 0

    assert file.read_text() == MESSY.replace("retries   =   4 ", "retries   =   7 ")
    assert agentorch("config", "get", "engine.retries").out == "7\n"
    assert json.loads(agentorch("config", "get", "engine.retries", "--json").out) == {
        "schema_version": 1,
        "name": "engine.retries",
        "value": 7,
        "origin": f"file {file}:5",
    }


@pytest.mark.parametrize(
    ("key", "value", "after", "line"),
    [
        ("gateway.port", "3005", "# port = 3001\n", "port = 3005\n"),
        ("gateway.insecure", "true", 'host = "::1"\n', "insecure = true\n"),
        ("engine.backoff", "250ms", 'task_timeout = "5m"\n', 'backoff = "250ms"\n'),
        ("server", "wss://h", "# not there\n", 'server = "wss://h"\n'),
        ("logging.level", "debug", 'host = "::1"\n', '\n[logging]\nlevel = "debug"\n'),
    ],
)
def test_a_new_key_stands_where_one_would_put_it(
    agentorch: Run, home: Path, key: str, value: str, after: str, line: str
) -> None:
    (home / "mine.toml").write_text(MESSY)

    done = agentorch("--config", "mine.toml", "config", "set", key, value)

    assert done.code == 0, done.err
    assert (home / "mine.toml").read_text() == MESSY.replace(after, after + line)
    agentorch("--config", "mine.toml", "config", "unset", key)
    assert (home / "mine.toml").read_text().replace("\n[logging]\n", "") == MESSY


def test_what_is_not_valid_is_not_written(agentorch: Run, home: Path) -> None:
    (home / "agentorch.toml").write_text(MESSY)

    for key, value, said in (
        ("gateway.port", "99999", "at most 65535"),
        ("gateway.port", "x", "whole number"),
        ("engine.task_timeout", "0", "longer than 0"),
        ("logging.level", "loud", "must be one of debug"),
        ("database.url", "mysql://u:geheim@h", "postgresql://"),
        ("gatway.port", "1", 'did you mean "gateway.port"'),
        ("gateway", "1", "is a section"),
        ("profiles.x.url", "ws://x", "agentorch profile"),
    ):
        done = agentorch("config", "set", key, value)
        assert done.code == 2 and said in done.err and "geheim" not in done.err, (key, done.err)
    assert (home / "agentorch.toml").read_text() == MESSY


def test_a_file_that_is_no_toml_is_left_alone_with_its_line(agentorch: Run, home: Path) -> None:
    (home / "agentorch.toml").write_text("[gateway]\nport = \n")

    done = agentorch("config", "set", "gateway.port", "5")

    assert done.code == 2 and "agentorch.toml:2:8" in done.err
    assert (home / "agentorch.toml").read_text() == "[gateway]\nport = \n"


def test_a_file_with_a_wrong_value_can_be_mended(agentorch: Run, home: Path) -> None:
    (home / "agentorch.toml").write_text("[gateway]\nport = 'x'\n[engine]\nretries = -1\n")

    done = agentorch("config", "set", "gateway.port", "5")

    assert done.code == 0 and "mistake elsewhere" in done.err and "engine.retries" in done.err
    assert agentorch("config", "unset", "engine.retries").code == 0
    assert agentorch("config", "get", "gateway.port").out == "5\n"


def test_it_goes_into_the_projects_file_where_there_is_one(agentorch: Run, home: Path) -> None:
    agentorch("config", "set", "gateway.port", "1")
    assert user_config_path().read_text() == "[gateway]\nport = 1\n"
    assert not (home / "agentorch.toml").exists()

    agentorch("config", "set", "gateway.port", "2", "--project")
    agentorch("config", "set", "gateway.port", "3")
    assert (home / "agentorch.toml").read_text() == "[gateway]\nport = 3\n"
    below = agentorch("config", "set", "gateway.port", "4", "--user")
    assert "In force is 3, from file" in below.err
    assert user_config_path().read_text() == "[gateway]\nport = 4\n"

    assert agentorch("config", "set", "server", "lab").code == 0
    assert tomllib.loads(user_config_path().read_text())["server"] == "lab"
    assert agentorch("config", "set", "server", "lab", "--project").code == 2
    assert agentorch("config", "set", "gateway.port", "4", "--project", "--user").code == 2


def test_unsetting_what_is_not_set_changes_nothing(agentorch: Run, home: Path) -> None:
    (home / "agentorch.toml").write_text(MESSY)

    done = agentorch("config", "unset", "gateway.port", "--json")

    assert (done.code, json.loads(done.out)["changed"]) == (0, False)
    assert (home / "agentorch.toml").read_text() == MESSY
    assert agentorch("config", "unset", "gateway.port", "--user").code == 0
    assert not user_config_path().exists()


def test_a_path_is_kept_so_that_it_means_the_same(agentorch: Run, home: Path) -> None:
    agentorch("config", "set", "data_dir", "fleet", "--user")
    assert agentorch("config", "get", "data_dir").out == f"{home / 'fleet'}\n" != ""

    (home / "agentorch.toml").touch()
    agentorch("config", "set", "data_dir", ".fleet")
    assert (home / "agentorch.toml").read_text() == 'data_dir = ".fleet"\n'


def test_a_password_is_not_shown_again(agentorch: Run) -> None:
    done = agentorch("config", "set", "database.url", "postgresql://u:geheim@h/x", "--user")
    got = agentorch("config", "get", "database.url")

    assert "geheim" not in done.out + done.err + got.out
    assert "geheim" in user_config_path().read_text()
    assert stat.S_IMODE(user_config_path().stat().st_mode) == 0o600


# --- the file on the disk -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o444])
def test_the_mode_stays(agentorch: Run, home: Path, mode: int) -> None:
    file = home / "agentorch.toml"
    file.write_text(MESSY)
    file.chmod(mode)

    assert agentorch("config", "set", "gateway.port", "5").code == 0

    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert [path.name for path in home.glob(".agentorch*")] == []


def test_a_link_of_ones_own_is_followed_and_stays(agentorch: Run, home: Path) -> None:
    (home / "dotfiles").mkdir()
    (home / "dotfiles" / "fleet.toml").write_text(MESSY)
    (home / "agentorch.toml").symlink_to("dotfiles/fleet.toml")

    assert agentorch("config", "set", "gateway.port", "5").code == 0

    assert (home / "agentorch.toml").is_symlink()
    assert "port = 5" in (home / "dotfiles" / "fleet.toml").read_text()


@pytest.mark.parametrize("open_part", ["folder", "file"])
def test_a_link_to_where_everybody_may_write_is_refused(home: Path, open_part: str) -> None:
    folder = home / "shared"
    folder.mkdir()
    target = folder / "fleet.toml"
    target.write_text(MESSY)
    (folder if open_part == "folder" else target).chmod(0o777)
    (home / "agentorch.toml").symlink_to(target)

    with pytest.raises(NotAllowed, match="others may write"):
        settingsfile.change(home / "agentorch.toml", lambda _: "changed")

    assert target.read_text() == MESSY


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a link to another account")
def test_a_link_that_somebody_else_laid_is_refused(home: Path) -> None:
    (home / "secret.toml").write_text(MESSY)
    (home / "agentorch.toml").symlink_to(home / "secret.toml")
    os.chown(home / "agentorch.toml", 12345, 12345, follow_symlinks=False)

    with pytest.raises(NotAllowed, match="is a link"):
        settingsfile.change(home / "agentorch.toml", lambda _: "changed")

    assert (home / "secret.toml").read_text() == MESSY


def test_what_is_no_plain_file_is_refused(home: Path) -> None:
    os.mkfifo(home / "agentorch.toml")

    with pytest.raises(InvalidConfig, match="no file"):
        settingsfile.change(home / "agentorch.toml", lambda _: "changed")


def test_a_failure_leaves_the_file_and_nothing_beside_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / "agentorch.toml"
    file.write_text(MESSY)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotAllowed, match="No space left"):
        settingsfile.change(file, lambda text: text + "\n")

    assert file.read_text() == MESSY
    assert sorted(path.name for path in home.iterdir() if "agentorch" in path.name) == ["agentorch.toml"]


def test_changes_at_once_are_all_there(home: Path) -> None:
    file = home / "agentorch.toml"

    def add(number: int) -> None:
        key = ("engine", f"x{number}")
        settingsfile.change(file, lambda text: tomledit.put(text, key, number, "x"))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert tomllib.loads(file.read_text())["engine"] == {f"x{number}": number for number in range(20)}


# --- texts of any form --------------------------------------------------------------------------

FORMS = [
    "gateway = { host = 'a' }  # one line\n",
    "gateway = {}\n",
    "gateway.host = 'a'\n",
    "[gateway]\nhost = '''\n# port = 1\n'''\n",
    "x = [\n  1, # one\n  2,\n]\n[gateway.deep]\ny = 1\n",
    "\ufeff# with a mark\n[gateway]\n",
    "[gateway]\r\nhost = 'a'\r\n# end",
    "[other]\na = 1 # no line end",
    "gateway = { host = 'a', port = 1, x = { port = 2 } }\n",
    '["gateway"]\n"port" = 1\n',
    "",
]


@pytest.mark.parametrize("text", FORMS)
def test_any_form_of_a_file_takes_a_key_and_gives_it_back(home: Path, text: str) -> None:
    file = home / "agentorch.toml"
    file.write_text(text, newline="")
    before = tomllib.loads(text.removeprefix("\ufeff"))

    for value in (7, 8):
        settingsfile.change(file, partial(tomledit.put, key=("gateway", "port"), value=value, name="x"))
        changed = file.read_bytes().decode()
        tree = tomllib.loads(changed.removeprefix("\ufeff"))
        assert tree["gateway"].pop("port") == value
        kept = [line[line.index("#") :] for line in text.splitlines() if "#" in line and "port" not in line]
        assert all(line in changed for line in kept)
        assert ("\r\n" in text) == ("\r\n" in changed) and changed.count("\n") - changed.count("\r\n") in (
            0,
            changed.count("\n"),
        )

    settingsfile.change(file, lambda text: tomledit.drop(text, ("gateway", "port"), "x"))
    after = tomllib.loads(file.read_bytes().decode().removeprefix("\ufeff"))
    before.get("gateway", {}).pop("port", None)
    assert {**after, "gateway": after.get("gateway", {})} == {**before, "gateway": before.get("gateway", {})}


NAMES = st.sampled_from(["a", "b", "gateway", "x y", "ä"])
SCALARS = st.one_of(
    st.integers(-9, 9),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    st.lists(st.integers(0, 3), max_size=3),
)
TREES = st.dictionaries(NAMES, st.one_of(SCALARS, st.dictionaries(NAMES, SCALARS, max_size=3)), max_size=4)


@given(TREES, st.lists(NAMES, min_size=1, max_size=2), SCALARS, st.booleans())
def test_only_the_one_value_changes_in_any_text(
    tree: dict[str, Any], key: list[str], value: Any, is_dropped: bool
) -> None:
    import tomli_w

    text = "# first\n" + tomli_w.dumps(tree) + "# last\n"
    path = tuple(key)
    if (len(path) == 2) != isinstance(tree.get(path[0], {} if len(path) == 2 else 0), dict):
        return  # a table stays a table, as settings do

    changed = tomledit.drop(text, path, "x") if is_dropped else tomledit.put(text, path, value, "x")

    expected = tomllib.loads(text)
    table = expected.setdefault(path[0], {}) if len(path) == 2 else expected
    if is_dropped:
        table.pop(path[-1], None)
    else:
        table[path[-1]] = value
    found = tomllib.loads(changed)
    if len(path) == 2:
        found.setdefault(path[0], {})
    assert found == expected
    assert "# first\n" in changed and "# last\n" in changed


def test_the_whole_example_takes_every_setting() -> None:
    from agentorch_cli.config import setting_names
    from agentorch_cli.settings import find_setting

    text = example()
    for name in setting_names():
        default = find_setting(name).default
        value = default if isinstance(default, bool | int | float | str) else "x"
        text = tomledit.put(text, tuple(name.split(".")), value, "example")

    lines = [line for line in text.splitlines() if not line or line.startswith(("#", "["))]
    assert lines == example().splitlines()
