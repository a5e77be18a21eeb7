"""A configuration file changed on the disk: whole or not at all, with its mode, and never elsewhere.

The new text goes into a file of its own beside the old one, which it then replaces by a rename, so
a reader finds the one or the other. A link is followed (people keep their files in one folder and
link them), but not to where others could have put something in its place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from agentorch_cli.errors import InvalidConfig, NotAllowed

BOM = "\ufeff"


def text_of(path: Path) -> str:
    """What the file says; nothing where there is none. Raises InvalidConfig, NotAllowed."""
    return _read(path)[0]


def change(path: Path, edit: Callable[[str], str], *, is_private: bool = False) -> bool:
    """Put `edit` of the file's text in its place; whether that was anything new.

    A file that is not there yet is made, readable to its owner alone where it `is_private`.
    Raises InvalidConfig, NotAllowed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = _target_of(path)
        with _alone(target.parent):
            text, status = _read(target)
            start = BOM if text.startswith(BOM) else ""
            changed = start + edit(text.removeprefix(BOM))
            if changed == text:
                return False
            _replace(target, changed, status, is_private)
    except OSError as error:
        raise NotAllowed(f"{path} cannot be written: {error.strerror or error}") from error
    return True


def _read(path: Path) -> tuple[str, os.stat_result | None]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return "", None
    except OSError as error:
        raise InvalidConfig(f"cannot be read: {error.strerror}", where=str(path)) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidConfig("is no file that could be changed", where=str(path))
        try:
            return file.read().decode(), status
        except UnicodeDecodeError as error:
            raise InvalidConfig(f"is not valid UTF-8 at byte {error.start}", where=str(path)) from error


def _target_of(path: Path) -> Path:
    """The file itself, behind a link. Raises NotAllowed for one that others may have laid or can replace."""
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise InvalidConfig("is a link that leads to itself", where=str(path))
    own = {0, os.geteuid()}
    folder = target.parent.stat()
    owners = {path.lstat().st_uid, folder.st_uid}
    is_open = folder.st_mode & stat.S_IWOTH
    if target.exists():
        found = target.stat()
        owners.add(found.st_uid)
        is_open |= found.st_mode & stat.S_IWOTH
    if is_open or not owners <= own:
        raise NotAllowed(
            f"{path} is a link to {target}, where others may write",
            hint=f"change that file itself, or put a file of your own in place of the link: rm {path}",
        )
    return target


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two changes at once would lose one of them."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # not every file system has locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        with contextlib.suppress(OSError):
            os.fsync(descriptor)  # the new name survives a power cut
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str, before: os.stat_result | None, is_private: bool) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    new = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            if before is None:
                os.fchmod(descriptor, 0o600 if is_private else 0o666 & ~_umask())
            else:
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    with contextlib.suppress(PermissionError):
                        os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            os.fsync(descriptor)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
