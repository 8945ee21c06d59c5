from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans.archive import sources
from bbans.archive.sources import Source, find
from bbans.errors import BadImage, BbansError, TooLarge

from .helpers import pixels, save


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def names(found: list[Source]) -> list[str]:
    return [name for source in found for name in source.names]


# -- image files and folders -------------------------------------------------------------------------------------------


def test_files_and_folders_keep_their_order_and_paths(tmp_path: Path) -> None:
    for path in ("b/z.png", "b/sub/y.jpg", "b/a.PNG", "b/.c.bmp", "a.png", "x/b.png"):
        save(path, pixels(2, 3, 3))
    Path("b/notes.txt").write_text("no image")
    Path("b/sub.png").mkdir()
    found = find(["x/b.png", "./b", tmp_path / "a.png", "b/../a.png"])
    inside = ["b/.c.bmp", "b/a.PNG", "b/sub/y.jpg", "b/z.png"]
    assert names(found) == ["x/b.png", *inside, str(tmp_path / "a.png")[1:], "a.png"]
    assert {(s.height, s.width, s.mode) for s in found} == {(2, 3, "RGB")}


def test_names_never_lead_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("a.png", pixels(2, 2))
    Path("below").mkdir()
    monkeypatch.chdir("below")
    assert names(find(["../a.png"])) == ["a.png"]
    assert names(find([".."])) == ["a.png"]


def test_pixels_are_read_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    grey = pixels(5, 4)
    save("grey.png", grey)
    Image.fromarray(grey > 99).save("bilevel.png")
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
        found = find(["grey.png", "bilevel.png"])
    assert [source.mode for source in found] == ["L", "1"]
    np.testing.assert_array_equal(found[0].read(0, 1), grey[None, :, :, None])
    np.testing.assert_array_equal(found[1].read(0, 1), (grey > 99)[None, :, :, None])


def test_links_to_folders_are_not_followed() -> None:
    save("b/a.png", pixels(2, 2))
    Path("b/loop").symlink_to("..")
    assert names(find(["b"])) == ["b/a.png"]


def test_a_file_that_changes_is_noticed() -> None:
    path = save("a.png", pixels(2, 2))
    (source,) = find([path])
    save("a.png", pixels(2, 3))
    with pytest.raises(BadImage, match="was changed"):
        source.read(0, 1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("none.png", "none.png: no such file"),
        ("empty", "empty: no images in this folder"),
        ("text.png", "text.png: is not an image"),
        ("alpha.png", "alpha.png: has mode RGBA"),
        ("folder", "folder/alpha.png: has mode RGBA"),
        ("new\nline.png", "control character"),
        ("back\\slash.png", "backslash"),
    ],
)
def test_bad_images(given: str, words: str) -> None:
    Path("empty").mkdir()
    Path("text.png").write_text("text")
    Path("folder").mkdir()
    for name in ("alpha.png", "folder/alpha.png"):
        Image.new("RGBA", (2, 2)).save(name)
    for name in ("new\nline.png", "back\\slash.png"):
        save(name, pixels(2, 2))
    with pytest.raises(BadImage) as caught:
        find([given])
    assert words in str(caught.value)
    with pytest.raises(BadImage, match="no images are given"):
        find([])


# -- arrays ------------------------------------------------------------------------------------------------------------

ARRAYS = [
    (pixels(5, 4, 3), "L", 1),
    (pixels(5, 4, 3, 1), "L", 1),
    (pixels(5, 4, 3, 3), "RGB", 3),
    (pixels(5, 4, 3) > 99, "1", 1),
]


@pytest.mark.parametrize(("array", "mode", "channels"), ARRAYS)
@pytest.mark.parametrize("kind", ["array", "npy", "npz", "compressed"])
def test_arrays(array: np.ndarray, mode: str, channels: int, kind: str) -> None:
    Path("sets").mkdir()
    given: str | np.ndarray = array
    if kind == "npy":
        np.save("sets/x.npy", array)
        given = "sets/x.npy"
    elif kind != "array":
        (np.savez if kind == "npz" else np.savez_compressed)("sets/x.npz", labels=np.arange(5), images=array)
        given = "sets/x.npz"
    (source,) = find([given])
    assert (source.height, source.width, source.mode) == (4, 3, mode)
    assert list(source.names)[3:] == (["3", "4"] if kind == "array" else ["sets/x/3", "sets/x/4"])
    for start, stop in [(0, 2), (2, 5), (1, 4), (4, 5), (0, 5)]:  # there and back again
        read = source.read(start, stop)
        assert read.dtype == np.uint8 and read.shape == (stop - start, 4, 3, channels)
        np.testing.assert_array_equal(read, array[start:stop].reshape(read.shape))
    source.close()


def test_several_arrays_are_told_apart() -> None:
    assert names(find([pixels(1, 2, 2), pixels(11, 3, 3)[9:]])) == ["0/0", "1/0", "1/1"]


def test_numbers_have_as_many_digits_as_needed() -> None:
    np.save("a.npy", pixels(101, 1, 1))
    np.savez("b.npz", only=pixels(100, 1, 1))
    found = names(find(["a.npy", "b.npz"]))
    assert (found[0], found[100], found[101], found[-1]) == ("a/000", "a/100", "b/00", "b/99")


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_an_array_is_never_read_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    array = pixels(300, 20, 20)
    np.save("x.npy", array)
    np.savez_compressed("x.npz", images=array)
    monkeypatch.setattr(sources, "CHUNK", 1000)
    asked: list[int] = []
    begin = sources._ArrayFile._begin

    class Watched:
        """A stream that notes how much is read at once."""

        def __init__(self, stream: io.BufferedIOBase) -> None:
            self.stream = stream

        def readinto(self, buffer: memoryview) -> int:
            asked.append(len(buffer))
            return self.stream.readinto(buffer)

        def read(self, size: int) -> bytes:
            asked.append(size)
            return self.stream.read(size)

        def seek(self, at: int) -> int:
            return self.stream.seek(at)

        def tell(self) -> int:
            return self.stream.tell()

    def watched(self: sources._ArrayFile) -> Watched:
        self._stream = Watched(begin(self))  # type: ignore[assignment, arg-type]
        return self._stream  # type: ignore[return-value]

    monkeypatch.setattr(sources._ArrayFile, "_begin", watched)
    (source,) = find([f"x.{kind}"])
    assert sum(asked) < 500  # the header
    for start in range(0, 300, 100):
        np.testing.assert_array_equal(source.read(start, start + 100)[..., 0], array[start : start + 100])
    assert max(asked) <= 1000 and sum(asked) < array.size + 1000  # once, and piece by piece


def npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


GOOD = npy(pixels(3, 4, 5))
CLAIM = npy(pixels(3, 4, 5)).replace(b"(3, 4, 5), }  ", b"(10000, 4, 5)}")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.npy", npy(np.zeros((0, 4, 4), np.uint8)), r"holds no pictures: \[0, 4, 4\]"),
        ("x.npy", npy(np.zeros((4, 4), np.uint8)), "pictures are uint8"),
        ("x.npy", npy(np.zeros((2, 4, 4, 2), np.uint8)), "pictures are uint8"),
        ("x.npy", npy(np.zeros((2, 4, 4), np.float32)), "not float32"),
        ("x.npy", npy(np.zeros((2, 4, 4, 1), bool)), "not bool"),
        ("x.npy", npy(np.asfortranarray(pixels(2, 4, 4))), "Fortran order"),
        ("x.npy", npy(np.array([{}], object)), "not object"),
        ("x.npy", GOOD[:-1], "is truncated"),
        ("x.npy", GOOD + b"x", "bytes behind its array"),
        ("x.npy", CLAIM, "is truncated"),
        ("x.npy", GOOD[:30], "cannot be read as an array"),
        ("x.npy", b"junk", "cannot be read as an array"),
        ("x.npy", b"", "cannot be read as an array"),
        ("x.npy", b"\x93NUMPY\x03\x00" + GOOD[8:], "version"),
        ("x.npz", npz(a=GOOD, b=GOOD), "several arrays, and none is called images"),
        ("x.npz", npz(), "several arrays|is called images"),
        ("x.npz", npz(images=CLAIM), "is truncated"),
        ("x.npz", npz(images=npy(np.zeros((0, 4, 4), np.uint8))), "holds no pictures"),
        ("x.npz", npz(images=GOOD)[:-20], "cannot be read as an array"),
        ("x.npz", b"junk", "cannot be read as an array"),
    ],
)
def test_bad_arrays(name: str, data: bytes, words: str) -> None:
    Path(name).write_bytes(data)
    with pytest.raises(BadImage, match=f"^x.np.: .*({words})"):
        find([name])


def test_missing_arrays_and_folders_that_look_like_some() -> None:
    with pytest.raises(BadImage, match=r"none.npy: no such file"):
        find(["none.npy"])
    save("folder.npz/a.png", pixels(2, 2))
    assert names(find(["folder.npz"])) == ["folder.npz/a.png"]


def test_damage_is_noticed_while_reading() -> None:
    array = pixels(50, 20, 20)
    np.savez("x.npz", images=array)
    data = bytearray(Path("x.npz").read_bytes())
    data[5000] ^= 1
    Path("x.npz").write_bytes(data)
    (source,) = find(["x.npz"])
    with pytest.raises(BadImage, match=r"x.npz: cannot be read as an array .*CRC"):
        for start in range(0, 50, 10):
            source.read(start, start + 10)
    source.close()


def test_bool_arrays_hold_nothing_else() -> None:
    data = bytearray(npy(np.zeros((2, 3, 3), bool)))
    data[-1] = 7
    Path("x.npy").write_bytes(data)
    (source,) = find(["x.npy"])
    with pytest.raises(BadImage, match="other values than 0 and 1"):
        source.read(0, 2)
    source.close()


@pytest.mark.parametrize("array", [np.zeros((2, 2), np.uint8), np.zeros((0, 2, 2), np.uint8), np.zeros((1, 2, 2), int)])
def test_bad_arrays_in_memory(array: np.ndarray) -> None:
    with pytest.raises(BadImage, match="array 0: "):
        find([array])


def test_pictures_that_are_too_large() -> None:
    huge = np.broadcast_to(np.zeros(1, np.uint8), (1, 20000, 20000))
    with pytest.raises(TooLarge):
        find([huge])


def test_files_are_closed_after_the_last_picture() -> None:
    np.savez("x.npz", images=pixels(4, 2, 2))
    (source,) = find(["x.npz"])
    source.read(0, 4)
    assert source._stream is None  # type: ignore[attr-defined]


def test_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    np.save("x.npy", pixels(4, 2, 2))

    def denied(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(BbansError, match=r"x.npy: cannot be read: Permission denied"):
        find(["x.npy"])


def test_a_transparent_colour_is_not_lost(tmp_path: Path) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "x.png", transparency=3)
    (source,) = find([tmp_path / "x.png"])
    with pytest.raises(BadImage, match="transparent colour"):
        source.read(0, 1)
