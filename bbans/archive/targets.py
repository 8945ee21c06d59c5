"""Where extracted pictures go: into a folder, and nowhere else.

Knows the file system; refuses to know archives. Names are checked elsewhere (`bbans.archive.names`); here it is links
that lie about, files that exist, and file systems that take A.png for a.png.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from bbans.errors import BadOutput
from bbans.image.files import check_output, write_picture
from bbans.image.picture import Picture


def check(folder: Path, targets: Iterable[str], *, force: bool) -> None:
    """Raises `BadOutput` when one of the targets couldn't be written: cheap, and so worth asking before the work."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise BadOutput(f"{folder}: is no folder")
    exists: dict[Path, bool] = {folder: folder.is_dir()}
    cases: dict[str, str] = {}
    alike: tuple[str, str] | None = None
    for target in targets:
        path = folder / target
        if _is_folder(path.parent, exists):
            _check_no_link(path)
            check_output(path, force=force)
        other = cases.setdefault(target.casefold(), target)
        if other != target and not alike:
            alike = other, target
    if alike and _ignores_case(folder):
        raise BadOutput(
            f"{folder / alike[1]}: on this file system it and {alike[0]} are one file; extract one at a time"
        )


def write(folder: Path, target: str, picture: Picture, *, force: bool) -> Path:
    """Write a picture, and the folders it is in where they don't exist; returns its path. Raises `BadOutput`."""
    path = folder / target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        where = folder
        for part in target.split("/")[:-1]:
            where /= part
            _check_no_link(where)
            where.mkdir(exist_ok=True)
    except OSError as error:
        raise BadOutput(f"{error.filename or path}: cannot be made a folder: {error.strerror or error}") from error
    _check_no_link(path)
    write_picture(picture, path, force=force)
    return path


def _is_folder(path: Path, known: dict[Path, bool]) -> bool:
    """Whether it exists, all that leads there being folders, and no links. Raises `BadOutput`."""
    if path not in known:
        known[path] = _is_folder(path.parent, known) and os.path.lexists(path)
        if known[path]:
            _check_no_link(path)
            if not path.is_dir():
                raise BadOutput(f"{path}: is no folder")
    return known[path]


def _check_no_link(path: Path) -> None:
    if path.is_symlink():
        raise BadOutput(f"{path}: is a link; nothing is extracted through links")


def _ignores_case(folder: Path) -> bool:
    """Whether a file system has one file for names that differ only in case. Asked of the first folder that exists."""
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    probe = place / f".bbans-{secrets.token_hex(8)}-a.tmp"
    try:
        probe.touch(exist_ok=False)
    except OSError as error:
        raise BadOutput(f"{place}: cannot be written to: {error.strerror or error}") from error
    try:
        return probe.with_name(probe.name.upper()).exists()
    finally:
        probe.unlink()
