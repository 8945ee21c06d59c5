from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans import archive
from bbans.archive import Archive
from bbans.archive.format import FILE
from bbans.errors import BadFile, BadOutput, BbansError, DecodedDiffers, ModelMissing

from .helpers import Fake, archive_of, files, grey, load, pixels, save

pytestmark = pytest.mark.usefixtures("fakes")
OUT = Path("out")


@pytest.fixture
def opened() -> Archive:
    """Pictures of several sizes and modes, and arrays; groups of up to 10, one of them a file."""
    save("in/a.png", pixels(5, 4, 3, seed=1))
    Image.fromarray(pixels(5, 4, 3, seed=2)).save("in/b.jpg")
    save("in/sub/c.pgm", pixels(3, 4, seed=3))
    save("in/sub/d.bmp", pixels(5, 4, 3, seed=4))
    Image.fromarray(pixels(4, 6, seed=5) > 99).save("in/e.png")
    save("in/f.png", np.broadcast_to(pixels(1025, 1, seed=6), (1025, 2048)))
    np.save("digits.npy", pixels(25, 4, 6, seed=7))
    np.savez("bits.npz", images=pixels(12, 4, 6, seed=8) > 99)
    archive.create("x.bbansa", ["in", "digits.npy", "bits.npz"], group=10)
    return archive.read("x.bbansa")


def expected(name: str) -> np.ndarray:
    kind, _, number = name.partition("/")
    if kind == "digits":
        return pixels(25, 4, 6, seed=7)[int(number)]
    return pixels(12, 4, 6, seed=8)[int(number)] > 99 if kind == "bits" else load(name)


def damage(opened: Archive, group: int) -> Archive:
    """The same archive with one wrong bit in a payload."""
    data = bytearray(opened.path.read_bytes())
    data[opened.groups[group].offset + opened.groups[group].header.size // 2] ^= 16
    opened.path.write_bytes(data)
    return archive.read(opened.path)


def names_of(opened: Archive, group: int) -> set[str]:
    return {entry.name for entry in opened.entries if entry.group == group}


def test_everything_comes_back(opened: Archive) -> None:
    told: dict[str, Path] = {}
    outcome = archive.extract(opened, OUT, tell=lambda entry, path: told.update({entry.name: path}))
    assert (outcome.images, outcome.losses) == (6 + 25 + 12, ())
    entries = list(opened.entries)
    assert FILE in {entry.kind for entry in entries} and {entry.mode for entry in entries} == {"1", "L", "RGB"}
    assert sorted(told) == sorted(entry.name for entry in entries)
    for entry in entries:
        array = load(told[entry.name])
        assert array.shape[:2] == (entry.height, entry.width)
        np.testing.assert_array_equal(array, expected(entry.name))
        assert array.dtype == (bool if entry.mode == "1" else np.uint8)
    assert files(OUT)[:3] == ["bits/00.png", "bits/01.png", "bits/02.png"]
    assert files(OUT)[-6:] == ["in/a.png", "in/b.jpg.png", "in/e.png", "in/f.png", "in/sub/c.pgm", "in/sub/d.bmp"]


def test_some_pictures(opened: Archive, fakes: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode = fakes.decode_chain

    def noted(model: Fake, payload: bytes, count: int, *size: int) -> np.ndarray:
        decoded.append(count)
        return decode(model, payload, count, *size)

    monkeypatch.setattr(fakes, "decode_chain", noted)
    archive.extract(opened, OUT, ["digits/13", "in/sub/"])
    assert files(OUT) == ["digits/13.png", "in/sub/c.pgm", "in/sub/d.bmp"]
    np.testing.assert_array_equal(load("out/digits/13.png"), expected("digits/13"))
    assert sorted(decoded) == [1, 3, 10]  # only the groups that are needed
    archive.extract(opened, OUT, ["in", "in/sub", "in/sub/c.pgm"], force=True)
    assert len(files(OUT)) == 7


@pytest.mark.parametrize("keep_going", [False, True])
def test_names_that_are_not_there(opened: Archive, keep_going: bool) -> None:
    if not keep_going:
        with pytest.raises(BadFile, match=r"x.bbansa: has no picture or folder 'in/zz'"):
            archive.extract(opened, OUT, ["in/a.png", "in/zz"])
        assert not OUT.exists()
        return
    outcome = archive.extract(opened, OUT, ["in/a.png", "in/zz"], keep_going=True)
    assert files(OUT) == ["in/a.png"] and "in/zz" in outcome.losses[0].what


def test_damage_elsewhere_does_not_matter(opened: Archive) -> None:
    damaged = damage(opened, 0)
    assert archive.extract(damaged, OUT, ["digits/13"]).images == 1


@pytest.mark.parametrize("group", range(8))
def test_damage_stops_before_anything_is_written(opened: Archive, group: int) -> None:
    damaged = damage(opened, group)
    for action in (
        lambda: archive.extract(damaged, OUT),
        lambda: archive.check(damaged),
        lambda: archive.extract_array(damaged, Path("out.npy"), sorted(names_of(opened, group))),
    ):
        with pytest.raises(BadFile, match=rf"^x.bbansa: group {group}: is damaged: its checksum .*--keep-going"):
            action()
    assert not OUT.exists() and not Path("out.npy").exists()


@pytest.mark.parametrize("group", range(8))
def test_keep_going_takes_what_is_whole(opened: Archive, group: int) -> None:
    damaged = damage(opened, group)
    lost = names_of(opened, group)
    outcome = archive.extract(damaged, OUT, keep_going=True)
    assert outcome.images == 43 - len(lost) == len(files(OUT))
    (loss,) = outcome.losses
    assert set(loss.names) == lost and f"group {group}: is damaged" in loss.what
    assert all(name in loss.what for name in (loss.names[0], loss.names[-1])) and len(loss.what) < 200
    assert archive.check(damaged, keep_going=True) == outcome


def test_keep_going_without_index_and_header(opened: Archive) -> None:
    """All at once: a truncated file, a damaged header, a damaged payload."""
    data = bytearray(damage(opened, 0).path.read_bytes())
    digits = opened.groups[4]
    data[digits.offset - 9] ^= 1
    opened.path.write_bytes(data[: opened.groups[7].offset + 3])
    rest = archive.read(opened.path, keep_going=True)
    outcome = archive.extract(rest, OUT, keep_going=True)
    lost = names_of(opened, 0) | names_of(opened, 4) | names_of(opened, 7)
    assert outcome.images == 43 - len(lost) == len(files(OUT))
    words = " | ".join(loss.what for loss in outcome.losses)
    assert "damaged or truncated" in words and "pictures 6 to 15 are lost" in words
    assert {name for loss in outcome.losses for name in loss.names} == lost - names_of(opened, 4)


def test_existing_output_stops_before_the_work(
    opened: Archive, fakes: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("out/digits/24.png", pixels(2, 2))
    with monkeypatch.context() as patch:
        patch.setattr(fakes, "decode_chain", lambda *args: pytest.fail("too late"))
        with pytest.raises(BadOutput, match=r"out/digits/24.png: exists already; -f"):
            archive.extract(opened, OUT)
    assert files(OUT) == ["digits/24.png"]
    archive.extract(opened, OUT, force=True)
    np.testing.assert_array_equal(load("out/digits/24.png"), expected("digits/24"))


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "C:/evil.png", "a\\..\\evil.png", "a\nb.png"])
@pytest.mark.parametrize("keep_going", [False, True])
def test_names_that_would_lead_out(name: str, keep_going: bool, tmp_path: Path) -> None:
    path = archive_of(tmp_path / "x.bbansa", [grey(name)])
    with pytest.raises(BadFile, match="refused: the name"):
        archive.extract(archive.read(path), OUT)
    rest = archive.read(path, keep_going=True)
    assert archive.extract(rest, OUT, keep_going=True).images == 0
    assert files(tmp_path) == ["x.bbansa"]


def test_names_that_clash() -> None:
    for one, other in [("a", "a"), ("a", "a.png"), ("a.png", "a.png/b")]:
        opened = archive.read(archive_of("x.bbansa", [grey(one, other)]))
        with pytest.raises(BadFile, match="extracted to the same place"):
            archive.extract(opened, OUT)
        assert archive.extract_array(opened, Path("x.npy"), force=True).images == 2
    assert not OUT.exists()


def differs_in_payload() -> Archive:
    """Groups of which the second decodes, but to other pixels."""
    first, second, third = (grey(name, position=i) for i, name in enumerate("abc"))
    path = archive_of("y.bbansa", [first, second, third])
    opened = archive.read(path)
    groups = list(opened.groups)
    groups[1] = dataclasses.replace(groups[1], header=dataclasses.replace(groups[1].header, pixels_sum=1))
    return dataclasses.replace(opened, groups=tuple(groups))


@pytest.mark.parametrize(
    "broken",
    [
        lambda *args: np.zeros((1, 2, 3, 1), np.uint8),
        lambda *args: np.zeros((1, 2, 4, 1), np.uint8),
        lambda *args: (_ for _ in ()).throw(BadFile("no")),
    ],
)
def test_a_machine_that_computes_differently(
    broken: Callable[..., object], fakes: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = archive.read(archive_of("y.bbansa", [grey("a")]))
    monkeypatch.setattr(fakes, "decode_chain", broken)
    with pytest.raises(DecodedDiffers, match=r"^y.bbansa: group 0: decodes to other pixels .*computes differently"):
        archive.check(opened)


def test_keep_going_when_a_group_decodes_differently() -> None:
    opened = differs_in_payload()
    with pytest.raises(DecodedDiffers):
        archive.extract(opened, OUT)
    outcome = archive.extract(opened, OUT, force=True, keep_going=True)
    assert outcome.images == 2 and outcome.losses[0].names == ("b",) and files(OUT) == ["a.png", "c.png"]
    with pytest.raises(BadFile, match="decodes to other pixels"):
        archive.extract_array(opened, Path("y.npy"), keep_going=True)
    assert not Path("y.npy").exists()


def test_a_model_that_is_missing(opened: Archive, fake_zoo: types.ModuleType) -> None:
    stranger = dataclasses.replace(grey("b", position=1)[0], model_id=b"stranger")
    path = archive_of("y.bbansa", [grey("a"), (stranger, pixels(1, 2, 3, 1)), grey("c", position=2)])
    assert [entry.name for entry in archive.read(path).entries] == ["a", "b", "c"]
    with pytest.raises(ModelMissing, match=rf"^y.bbansa: group 1: .*{b'stranger'.hex()}"):
        archive.extract(archive.read(path), OUT)
    assert not OUT.exists()
    outcome = archive.extract(archive.read(path), OUT, keep_going=True)
    assert files(OUT) == ["a.png", "c.png"] and outcome.losses[0].names == ("b",)


def test_a_file_of_another_size(opened: Archive) -> None:
    header = dataclasses.replace(next(g for g in opened.groups if g.header.kind == FILE).header, width=2047)
    groups = [dataclasses.replace(g, header=header) if g.header.kind == FILE else g for g in opened.groups]
    with pytest.raises(BbansError, match="decodes to other pixels"):
        archive.check(dataclasses.replace(opened, groups=tuple(groups)))


# -- arrays ------------------------------------------------------------------------------------------------------------


def test_arrays_come_back(opened: Archive) -> None:
    for name, array in [("digits", np.load("digits.npy")), ("bits", np.load("bits.npz")["images"])]:
        outcome = archive.extract_array(opened, Path("out.npy"), [name], force=True)
        read = np.load("out.npy")
        assert outcome.images == len(array) and read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)
    archive.extract_array(opened, Path("out.npy"), ["in/a.png", "in/sub/d.bmp"], force=True)
    np.testing.assert_array_equal(np.load("out.npy"), np.stack([load("in/a.png"), load("in/sub/d.bmp")]))
    archive.extract_array(opened, Path("one.npy"), ["digits/13"])
    np.testing.assert_array_equal(np.load("one.npy")[0], expected("digits/13"))


def test_arrays_are_of_one_size_and_mode(opened: Archive) -> None:
    with pytest.raises(BadOutput, match=r"out.npy: the pictures are not of one size and mode"):
        archive.extract_array(opened, Path("out.npy"))
    with pytest.raises(BadOutput, match="exists already"):
        archive.extract_array(opened, Path("digits.npy"), ["digits"])
    assert not Path("out.npy").exists()


def test_an_array_of_what_is_whole(opened: Archive) -> None:
    damaged = damage(opened, 4)
    outcome = archive.extract_array(damaged, Path("out.npy"), ["digits"], keep_going=True)
    assert outcome.images == 15
    np.testing.assert_array_equal(np.load("out.npy"), np.load("digits.npy")[10:])
    with pytest.raises(BadFile, match="nothing is left"):
        archive.extract_array(damaged, Path("none.npy"), ["digits/03"], keep_going=True)


def test_groups_out_of_order_are_put_in_order() -> None:
    path = archive_of("y.bbansa", [grey("c", "d", position=2), grey("a", "b")])
    archive.extract_array(archive.read(path), Path("y.npy"))
    both = np.concatenate([pixels(2, 2, 3, seed=0), pixels(2, 2, 3, seed=2)])
    np.testing.assert_array_equal(np.load("y.npy"), both)


def test_nothing_is_left_of_an_array_when_interrupted(
    opened: Archive, fakes: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(Path())

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fakes, "decode_chain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        archive.extract_array(opened, Path("out.npy"), ["digits"])
    assert files(Path()) == before
