from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bbans.archive import targets
from bbans.errors import BadOutput
from bbans.image.picture import Picture

from .helpers import files, load, pixels

PICTURE = Picture(pixels(2, 3, 3), "RGB")


def write(folder: Path, target: str, *, force: bool = False) -> None:
    targets.check(folder, [target], force=force)
    targets.write(folder, target, PICTURE, force=force)


def test_folders_are_made(tmp_path: Path) -> None:
    write(tmp_path / "new" / "one", "a/b/c.png")
    write(tmp_path / "new" / "one", "a/b/d.png")
    assert files(tmp_path) == ["new/one/a/b/c.png", "new/one/a/b/d.png"]
    np.testing.assert_array_equal(load(tmp_path / "new/one/a/b/c.png"), PICTURE.pixels)


def test_checking_changes_nothing(tmp_path: Path) -> None:
    targets.check(tmp_path / "new", ["a/b.png", "A/b.png", "c.png"], force=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("force", [False, True])
def test_existing_files(force: bool, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("mine")
    if force:
        write(tmp_path, "a.png", force=True)
    for step in (lambda: targets.check(tmp_path, ["b.png", "a.png"], force=False), lambda: write(tmp_path, "a.png")):
        with pytest.raises(BadOutput, match="exists already"):
            step()
    assert ((tmp_path / "a.png").read_bytes() != b"mine") == force


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("target", ["link/x.png", "real/link/x.png", "file.png", "dangling.png", "link/new/x.png"])
def test_links_are_not_followed(force: bool, target: str, tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    for path in (outside, folder, folder / "real"):
        path.mkdir()
    (outside / "victim.png").write_text("mine")
    (folder / "link").symlink_to(outside)
    (folder / "real" / "link").symlink_to("../../outside")
    (folder / "file.png").symlink_to(outside / "victim.png")
    (folder / "dangling.png").symlink_to(outside / "new.png")
    for step in (
        lambda: targets.check(folder, [target], force=force),
        lambda: targets.write(folder, target, PICTURE, force=force),
    ):
        with pytest.raises(BadOutput, match="is a link"):
            step()
    assert files(outside) == ["victim.png"] and (outside / "victim.png").read_text() == "mine"


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", "a.png")
    assert files(tmp_path / "real") == ["a.png"]


def test_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "x.png").mkdir()
    for folder, target, words in [
        (tmp_path, "file/a.png", "file: is no folder"),
        (tmp_path / "file", "a.png", "file: is no folder"),
        (tmp_path, "x.png", "x.png: is a directory"),
    ]:
        with pytest.raises(BadOutput, match=words):
            targets.check(folder, [target], force=True)
        with pytest.raises(BadOutput):
            targets.write(folder, target, PICTURE, force=True)


def test_names_that_differ_in_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets.check(tmp_path, ["a.png", "A.png"], force=False)  # two files, on this machine
    monkeypatch.setattr(targets, "_ignores_case", lambda folder: True)
    with pytest.raises(BadOutput, match=r"A.png: on this file system it and a.png are one file"):
        targets.check(tmp_path, ["a.png", "A.png"], force=False)
    targets.check(tmp_path, ["a.png", "B.png"], force=False)


def test_case_is_asked_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: path.name.isupper() or ".TMP" in path.name)
    with pytest.raises(BadOutput, match="one file"):
        targets.check(tmp_path / "not" / "there", ["a.png", "A.png"], force=False)
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())
