from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pytest

from bbans import archive
from bbans.archive import writing
from bbans.errors import BadImage, BadModel, BadOutput, BbansError, ModelMissing
from bbans.image import files as image_files
from bbans.image.weighted import Particles

from .helpers import PHOTO, SMALL, SMALL_MODEL, files, pixels, save

pytestmark = pytest.mark.usefixtures("fakes")


def models(path: str) -> dict[str, list[str]]:
    """Names of the pictures that each model codes."""
    found: dict[str, list[str]] = {}
    for entry in archive.read(path).entries:
        found.setdefault(entry.model_id.rstrip(b"\0").decode(), []).append(entry.name)
    return found


def test_report() -> None:
    save("a.png", pixels(5, 4, 3))
    report = archive.create("x.bbansa", ["a.png", pixels(25, 4, 6)], group=10)
    assert (report.images, report.groups, report.dims, report.models) == (26, 4, 60 + 600, ("photo",))
    assert report.total == 8 * Path("x.bbansa").stat().st_size
    assert report.net + report.initial + report.container == report.total
    assert report.initial == 4 * 32 and 0 < report.container < report.total
    assert set(report.per_dim()) == {"elbo", "net", "initial", "container", "total"}


def test_what_the_container_costs() -> None:
    report = archive.create("x.bbansa", np.zeros((1000, 28, 28), bool))
    assert report.container <= 8 * 65


def test_pictures_that_a_model_does_not_take_go_to_photo() -> None:
    height, width, _ = SMALL
    save("small.png", pixels(height, width))
    save("other.png", pixels(5, 5))
    archive.create("x.bbansa", ["small.png", "other.png"], model="small")
    assert models("x.bbansa") == {"small": ["small.png"], "photo": ["other.png"]}
    archive.create("x.bbansa", ["small.png", "other.png"], force=True)
    assert models("x.bbansa") == {"photo": ["small.png", "other.png"]}
    archive.create("x.bbansa", ["small.png"], model=SMALL_MODEL, force=True)  # type: ignore[arg-type]
    assert models("x.bbansa") == {"small": ["small.png"]}
    archive.create("x.bbansa", ["small.png"], model=Path("/models/small"), force=True)
    assert models("x.bbansa") == {"small": ["small.png"]}


def test_pictures_that_no_model_takes(fakes: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "encode_chain", lambda *args, **options: pytest.fail("too late"))
    save("in/good.png", pixels(5, 5))
    save("in/tall.png", pixels(13, 5))
    for model, words in [(None, "photo"), ("small", "small"), ("small", "nor does photo")]:
        with pytest.raises(BadImage, match=f"^in/tall.png: the model .*{words}"):
            archive.create("x.bbansa", ["in"], model=model)
    assert files(Path()) == ["in/good.png", "in/tall.png"]


def test_particles(fakes: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, encode = [], fakes.encode_chain
    monkeypatch.setattr(fakes, "encode_chain", lambda *args, **how: (asked.append(how["particles"]), encode(*args))[1])
    height, width, _ = SMALL
    for particles in (None, Particles(5)):
        archive.create("x.bbansa", pixels(3, height, width), model="small", particles=particles, force=True)
        assert [group.header.particles for group in archive.read("x.bbansa").groups] == [particles is not None]
    assert asked == [None, Particles(5)]


def test_models_that_take_no_particles(fakes: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is coded before that is known."""
    monkeypatch.setattr(fakes, "encode_chain", lambda *args, **options: pytest.fail("too late"))
    height, width, _ = SMALL
    with pytest.raises(BadModel, match="the model photo takes no particles"):
        archive.create("x.bbansa", [pixels(3, height, width), pixels(3, 5, 5)], model="small", particles=Particles(2))
    assert not Path("x.bbansa").exists()


def test_without_photo(monkeypatch: pytest.MonkeyPatch, fake_zoo: types.ModuleType) -> None:
    def load(name: str | None = None) -> object:
        if name == "small":
            return SMALL_MODEL
        raise ModelMissing("none")

    monkeypatch.setattr(fake_zoo, "load", load)
    height, width, _ = SMALL
    archive.create("x.bbansa", pixels(3, height, width), model="small")
    with pytest.raises(BadImage, match=r"^00?: the model small takes no pictures of 5 x 5 of mode L; -m"):
        archive.create("y.bbansa", pixels(11, 5, 5), model="small")
    with pytest.raises(ModelMissing):
        archive.create("y.bbansa", pixels(11, 5, 5))


def test_the_output_is_looked_at_first(fakes: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing.sources, "find", lambda given: pytest.fail("too late"))
    Path("x.bbansa").write_text("mine")
    for out, words in [("x.bbansa", "exists already"), ("none/x.bbansa", "no directory"), (".", "is a directory")]:
        with pytest.raises(BadOutput, match=words):
            archive.create(out, ["a.png"])
    assert Path("x.bbansa").read_text() == "mine"


def test_inputs_are_never_overwritten() -> None:
    save("a.png", pixels(5, 4))
    before = Path("a.png").read_bytes()
    with pytest.raises(BadOutput, match="one of its own pictures"):
        archive.create("./a.png", ["a.png"], force=True)
    assert Path("a.png").read_bytes() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), BbansError("no"), RuntimeError("odd")])
def test_nothing_is_left_when_coding_fails(
    error: BaseException, fakes: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, calls = fakes.encode_chain, []

    def encode_then_fail(*args: object, **options: object) -> object:
        calls.append(args)
        if len(calls) == 3:
            raise error
        return encode(*args, **options)

    monkeypatch.setattr(fakes, "encode_chain", encode_then_fail)
    with pytest.raises(type(error)):
        archive.create("x.bbansa", pixels(50, 5, 5), group=10)
    assert len(calls) == 3 and files(Path()) == []


def test_nothing_is_left_when_reading_fails() -> None:
    np.save("a.npy", pixels(50, 5, 5))
    data = Path("a.npy").read_bytes()
    for i in range(3):
        save(f"b/{i}.png", pixels(9, 9))
    half = Path("b/2.png").read_bytes()[:-40]
    Path("b/2.png").write_bytes(half)
    with pytest.raises(BadImage, match=r"b/2.png: is damaged"):
        archive.create("x.bbansa", ["a.npy", "b"], group=10)
    assert files(Path()) == ["a.npy", "b/0.png", "b/1.png", "b/2.png"] and Path("a.npy").read_bytes() == data


def test_nothing_is_left_when_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_files.os, "fsync", full)
    Path("x.bbansa").write_text("before")
    with pytest.raises(BadOutput, match="No space left"):
        archive.create("x.bbansa", pixels(5, 5, 5), force=True)
    assert files(Path()) == ["x.bbansa"] and Path("x.bbansa").read_text() == "before"


def test_pictures_are_read_group_by_group(fakes: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by the group, not by the archive."""
    log: list[str] = []
    read, encode = writing.Group.read, fakes.encode_chain

    def noted_read(group: writing.Group) -> np.ndarray:
        log.append("read")
        return read(group)

    def noted_encode(*args: object, **options: object) -> object:
        log.append("encode")
        return encode(*args, **options)

    monkeypatch.setattr(writing.Group, "read", noted_read)
    monkeypatch.setattr(fakes, "encode_chain", noted_encode)
    archive.create("x.bbansa", pixels(50, 5, 5), group=10)
    assert log == ["read", "encode"] * 5


@pytest.mark.parametrize("inputs", [[], "empty", "empty.npy"])
def test_empty_inputs(inputs: object) -> None:
    Path("empty").mkdir()
    np.save("empty.npy", pixels(0, 5, 5))
    with pytest.raises(BadImage, match=r"no images|holds no pictures"):
        archive.create("x.bbansa", inputs)  # type: ignore[arg-type]
    assert files(Path()) == ["empty.npy"]


def test_the_model_is_in_the_archive() -> None:
    archive.create("x.bbansa", pixels(2, 5, 5))
    assert PHOTO.id in Path("x.bbansa").read_bytes()
