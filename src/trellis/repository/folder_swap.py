# SPDX-License-Identifier: Apache-2.0
"""A folder replaced by a new one in one step, keeping in it what somebody else put there."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil

OWN = ".replaced.json"  # in a folder that is replaced: which of its files are not carried over


@contextlib.contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` to build its successor in; gone afterwards in any case."""
    prefix = f".{target.name}.new.{os.getpid()}."
    staging = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def swap(staging: Path, target: Path, own: Collection[str]) -> None:
    """Put `staging` in the place of `target`; entries of `target` not in `own` move along as is.

    `own` are names of files relative to `target`. Raises FileExistsError, before anything moves,
    for a foreign file whose name the new folder needs.
    """
    foreign = _foreign(target, set(own))
    for name in foreign:
        if os.path.lexists(staging / name) and not (staging / name).is_dir():
            raise FileExistsError(f"{name} was put there by somebody else; move it away")
    old = target.with_name(f".{target.name}.old.{os.getpid()}")
    if target.exists():
        os.rename(target, old)
    try:
        if old.exists():
            (old / OWN).write_text(json.dumps(sorted(own)))
        os.rename(staging, target)
        _carry(foreign, old, target)
    except BaseException:
        if target.exists():
            _carry(foreign, old, target)  # renames only: what was begun is finished
        else:
            _put_back(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _foreign(target: Path, own: set[str]) -> list[Path]:
    """The topmost entries that hold nothing of `own`: files, links, and folders, empty ones too."""
    if not target.is_dir():
        return []
    parents = {str(parent) for name in own for parent in Path(name).parents}
    found = []
    for folder, folders, files in os.walk(target):
        here = Path(folder).relative_to(target)
        for name in [*folders, *files]:
            path = here / name
            if str(path) in own or name == "__pycache__":
                continue
            if name in folders and str(path) in parents and not (target / path).is_symlink():
                continue  # partly ours: looked into next
            found.append(path)
        folders[:] = [name for name in folders if here / name not in found]
    return found


def _carry(foreign: list[Path], old: Path, target: Path) -> None:
    for name in foreign:
        if not os.path.lexists(old / name):
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (target / name).is_dir() and not (old / name).is_symlink():
            for entry in list((old / name).iterdir()):
                _carry([entry.relative_to(old)], old, target)
            continue
        os.rename(old / name, target / name)


def recover(target: Path) -> None:
    """Put back, or remove, what a run that was killed left beside `target`."""
    for old in target.parent.glob(f".{target.name}.old.*"):
        if _abandoned(old) and not target.exists():
            _put_back(old, target)
        elif _abandoned(old):
            _finish(old, target)
    for staging in target.parent.glob(f".{target.name}.new.*"):
        if _abandoned(staging):
            shutil.rmtree(staging, ignore_errors=True)


def _put_back(old: Path, target: Path) -> None:
    (old / OWN).unlink(missing_ok=True)
    os.rename(old, target)


def _finish(old: Path, target: Path) -> None:
    """Carry over what a run that was killed in the midst of it had not yet; other models, say."""
    try:
        own = json.loads((old / OWN).read_text())
    except (OSError, ValueError):
        return
    foreign = _foreign(old, {*own, OWN})
    if not any(os.path.lexists(target / name) and not (target / name).is_dir() for name in foreign):
        _carry(foreign, old, target)
        shutil.rmtree(old, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    """Whether the process that made it, whose number is in its name, is gone."""
    number = folder.name.split(".new." if ".new." in folder.name else ".old.")[1].split(".")[0]
    return number.isdecimal() and not psutil.pid_exists(int(number))
