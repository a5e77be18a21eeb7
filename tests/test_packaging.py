"""What an installation consists of: few packages, bounded, locked, from no particular place."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import agentorch_cli

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {name: ROOT / "requirements" / f"{name}.txt" for name in ("base", "dev")}
DIRECT = {
    "base": PROJECT["project"]["dependencies"],
    "dev": PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"],
}


def locked(name: str) -> dict[str, Version]:
    """Each package of a lock with its version."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", LOCKS[name].read_text(), re.MULTILINE)
    return {package.lower(): Version(version) for package, version in pins}


def test_the_base_install_has_at_most_25_packages() -> None:
    assert 10 <= len(locked("base")) <= 25


@pytest.mark.parametrize("line", DIRECT["dev"])
def test_every_dependency_has_a_lower_and_an_upper_bound(line: str) -> None:
    operators = {specifier.operator for specifier in Requirement(line).specifier}

    assert operators == {">=", "<"}


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_has_an_allowed_version_of_every_dependency(name: str) -> None:
    pins = locked(name)

    wrong = [
        line
        for line in DIRECT[name]
        if (wanted := Requirement(line)).name.lower() not in pins
        or not wanted.specifier.contains(pins[wanted.name.lower()])
    ]

    assert wrong == [], "run `make lock`"


def test_the_locks_agree_about_what_they_share() -> None:
    base, dev = locked("base"), locked("dev")

    assert {name: dev.get(name) for name in base} == base


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_hashes(name: str) -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCKS[name].read_text(), flags=re.MULTILINE)[1:]

    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_registry_and_no_folder(name: str) -> None:
    packages = re.sub(r"^#.*$", "", LOCKS[name].read_text(), flags=re.MULTILINE)

    assert re.findall(r"\S*(?:://|/|--(?!hash=)|@)\S*", packages) == []


def test_no_committed_file_names_a_registry() -> None:
    hosts = re.compile(
        "|".join(["python" + "hosted", "pypi" + r"\.org", "index" + "-url =", "--extra" + "-index"])
    )
    found = [
        str(path.relative_to(ROOT))
        for path in committed_files()
        if path.is_file() and hosts.search(path.read_bytes().decode("utf-8", "replace"))
    ]

    assert found == []


def committed_files() -> list[Path]:
    """What git would keep; in a copy without git, the files that matter most."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0:
        return [ROOT / name.decode() for name in listing.stdout.split(b"\0") if name]
    return [ROOT / "Makefile", ROOT / "pyproject.toml", *LOCKS.values(), *(ROOT / "scripts").iterdir()]


def test_the_package_holds_what_it_reads_besides_its_code() -> None:
    from hatchling.builders.wheel import WheelBuilder

    packed = {one.distribution_path for one in WheelBuilder(str(ROOT)).recurse_included_files()}
    read = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "agentorch_cli").rglob("*")
        if path.suffix in (".html", ".css", ".js", ".svg", ".sql")
    }

    assert {"agentorch_cli/gateway/ui/index.html", "agentorch_cli/gateway/ui/app.js"} <= read
    assert read <= packed


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (\S+)", changelog, re.MULTILINE)

    assert headings[0] == agentorch_cli.__version__


def test_an_unfit_python_is_refused_with_a_sentence(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)

    refusal = subprocess.run(
        ["sh", ROOT / "scripts" / "find-python"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(old)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert refusal.returncode == 2
    assert refusal.stdout == ""
    assert "needs Python 3.11 or newer" in refusal.stderr


def test_a_name_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "python3.13"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    (tmp_path / "python3.12").symlink_to(sys.executable)

    found = subprocess.run(
        ["sh", ROOT / "scripts" / "find-python"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert Path(found.stdout.strip()).resolve() == Path(sys.executable).resolve()
