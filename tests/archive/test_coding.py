from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from bbans.archive.coding import Finder, decode
from bbans.errors import BadFile, ModelMissing

from .helpers import MODELS, PHOTO, SMALL_MODEL, Fake, grey

pytestmark = pytest.mark.usefixtures("fakes")


def test_models_are_loaded_once(fake_zoo: object, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bytes, Path | None, int | None]] = []

    def load_by_id(model_id: bytes, *, search: Path | None, device: str, threads: int | None) -> Fake:
        asked.append((model_id, search, threads))
        return next(model for model in MODELS if model.id == model_id)

    monkeypatch.setattr(fake_zoo, "load_by_id", load_by_id)
    find = Finder([PHOTO], search=Path("/elsewhere"))  # type: ignore[list-item]
    for _ in range(2):
        assert find(PHOTO.id) is PHOTO and find(SMALL_MODEL.id) is SMALL_MODEL
    assert asked == [(SMALL_MODEL.id, Path("/elsewhere"), None)]
    there = pickle.loads(pickle.dumps(find))  # in another process: one thread, and everything is loaded from its folder
    for _ in range(2):
        assert there(PHOTO.id) == PHOTO and there(SMALL_MODEL.id) == SMALL_MODEL
    assert asked[1:] == [(PHOTO.id, PHOTO.path, 1), (SMALL_MODEL.id, Path("/elsewhere"), 1)]


def test_missing_models_are_known_without_loading(fake_zoo: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelMissing):
        Finder().check(b"stranger")
    monkeypatch.setattr(fake_zoo, "load_by_id", lambda *args, **options: pytest.fail("loaded"))
    Finder().check(PHOTO.id)


def test_no_model_decodes_a_picture_that_fills_the_memory() -> None:
    header, _ = grey("a")
    error = decode(Finder([PHOTO]), (replace(header, width=4096, height=1025), b""))  # type: ignore[list-item]
    assert isinstance(error, BadFile) and "codes no such pictures" in str(error)
