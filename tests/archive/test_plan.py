from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bbans.archive import plan as plans
from bbans.archive.format import CHAIN, FILE, Run
from bbans.archive.names import Listed, Numbered
from bbans.archive.plan import plan
from bbans.archive.sources import find
from bbans.errors import BadImage

from .helpers import pixels, save


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_an_array_is_cut_into_groups() -> None:
    array = pixels(25, 2, 3)
    groups = plan(find([array]), group=10)
    assert [group.runs for group in groups] == [(Run(0, 10),), (Run(10, 10),), (Run(20, 5),)]
    assert groups[1].names == (Numbered("", 10, 10, 2),)
    np.testing.assert_array_equal(np.concatenate([group.read() for group in groups])[..., 0], array)


def test_pictures_of_one_size_and_mode_come_together() -> None:
    small, large = pixels(2, 3, 3), pixels(4, 4, 3)
    for name, array in [("a", small), ("b", large), ("c", small[..., 0]), ("d", small), ("e", large)]:
        save(f"{name}.png", array)
    np.save("f.npy", np.stack([small] * 3))
    found = find(["a.png", "b.png", "c.png", "d.png", "e.png", "f.npy"])
    groups = plan(found, group=3)
    assert [[name for part in group.names for name in part] for group in groups] == [
        ["a.png", "d.png", "f/0"],
        ["b.png", "e.png"],
        ["c.png"],
        ["f/1", "f/2"],
    ]
    assert [group.runs for group in groups] == [
        (Run(0, 1), Run(3, 1), Run(5, 1)),
        (Run(1, 1), Run(4, 1)),
        (Run(2, 1),),
        (Run(6, 2),),
    ]
    assert groups[0].names == (Listed(("a.png", "d.png")), Numbered("f/", 0, 1, 1))
    np.testing.assert_array_equal(groups[0].read(), np.stack([small] * 3))
    found[-1].close()


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "GROUP_SAMPLES", 100)
    assert [group.runs for group in plan(find([pixels(5, 4, 4, 3)]))] == [
        (Run(0, 2),),
        (Run(2, 2),),
        (Run(4, 1),),
    ]
    assert len(plan(find([pixels(2, 20, 20)]))) == 2  # even if one is too many


def test_large_pictures_are_files_of_their_own() -> None:
    large = np.broadcast_to(np.zeros(1, np.uint8), (2, 1025, 2048))
    groups = plan(find([large]))
    assert [(group.kind, group.runs) for group in groups] == [(FILE, (Run(0, 1),)), (FILE, (Run(1, 1),))]
    assert [group.kind for group in plan(find([large[:, :1024]]))] == [CHAIN]


def test_long_names_make_groups_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MAX_NAME_BYTES", 100)
    for i in range(6):
        save(f"long-name-{i}.png", pixels(2, 2))
    assert len(plan(find(["."]))) == 6


def test_names_that_clash() -> None:
    np.save("a.npy", pixels(10, 2, 2))
    save("a/3.png", pixels(2, 2))
    with pytest.raises(BadImage, match=r"^a/3.png: two pictures have this name"):
        plan(find(["a/3.png", "a", "a.npy"]))
    with pytest.raises(BadImage, match=r"^a/3: it and a/3.png would be extracted to the same place; rename"):
        plan(find(["a", "a.npy"]))


def test_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MAX_PICTURES", 9)
    with pytest.raises(BadImage, match="up to 9 pictures"):
        plan(find([pixels(10, 1, 1)]))
    with pytest.raises(ValueError, match="1 to 65536"):
        plan(find([pixels(1, 1, 1)]), group=0)
