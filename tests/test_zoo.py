from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bbans import zoo
from bbans.errors import BadModel, InexactDevice, ModelMissing

Folders = dict[int, Path]


@pytest.fixture
def changed(tiny_models: Folders, tmp_path: Path):
    """changed(metadata=..., name=tensor or None): a copy of the model with other metadata or tensors."""
    described, _ = zoo.read_weights(tiny_models[2])

    def change(metadata: dict[str, str] | None = None, **tensors: np.ndarray | None) -> Path:
        arrays = load_file(tiny_models[2] / zoo.WEIGHTS)
        for name, value in tensors.items():
            arrays[name.replace("__", ".")] = value
        arrays = {name: value for name, value in arrays.items() if value is not None}
        save_file(arrays, tmp_path / zoo.WEIGHTS, metadata or {"bbans": json.dumps(described)})
        return tmp_path

    return change


def test_a_model_is_found_by_folder_by_name_and_by_id(tiny_models: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tiny_models[2].parent
    by_path = zoo.load(tiny_models[2], device="cpu")
    monkeypatch.setenv("BBANS_MODELS", str(place))
    by_name, by_id = zoo.load("2", device="cpu"), zoo.load_by_id(by_path.id, device="cpu")
    assert by_path.id == by_name.id == by_id.id and len(by_path.id) == zoo.ID_BYTES
    assert by_path.path == by_name.path == by_id.path == tiny_models[2]
    assert {"0", "2"} <= {info.name for info in zoo.available()}


def test_a_folder_does_not_take_the_name_of_a_model(
    tiny_models: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files made with such a folder, nobody would know that they need it."""
    shutil.copytree(tiny_models[0], tmp_path / "models" / "photo")
    for name in ("photo", "mine"):
        shutil.copytree(tiny_models[2], tmp_path / "here" / name)
    monkeypatch.setenv("BBANS_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path / "here")
    shipped, folder = (zoo.load(tiny_models[i], device="cpu").id for i in (0, 2))
    assert zoo.load(device="cpu").id == zoo.load("photo", device="cpu").id == shipped
    for path in ("./photo", "photo/", Path("photo"), "mine"):
        assert zoo.load(path, device="cpu").id == folder


def test_the_current_folder_has_its_name(tiny_models: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_models[2])
    assert zoo.load(".", device="cpu").name == "2" == zoo.available(Path("."))[0].name


def test_the_default_is_no_folder(tiny_models: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_models[2], tmp_path / "photo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "_PLACES", ())
    with pytest.raises(ModelMissing, match="no model 'photo'"):
        zoo.load(device="cpu")


def test_the_id_depends_on_nothing_but_the_weights(tiny_models: Folders, tmp_path: Path) -> None:
    shutil.copy(tiny_models[2] / zoo.WEIGHTS, tmp_path)
    copy = zoo.load(tmp_path, device="cpu")
    assert copy.id == zoo.load(tiny_models[2], device="cpu").id != zoo.load(tiny_models[0], device="cpu").id
    assert copy.float_elbo_bits(np.zeros((2, 2, 3), np.uint8)) is None


def test_a_model_that_is_not_here(tiny_models: Folders) -> None:
    with pytest.raises(ModelMissing, match="no model 'nonesuch'"):
        zoo.load("nonesuch")
    with pytest.raises(ModelMissing, match="0102030405060708"):
        zoo.load_by_id(bytes(range(1, 9)), search=tiny_models[2].parent)


def test_weights_that_are_no_model(tmp_path: Path, changed) -> None:
    with pytest.raises(BadModel, match="not a bbans model"):
        zoo.load(changed(metadata={"format": "pt"}))
    with pytest.raises(BadModel, match="family 'text'"):
        zoo.load(changed(metadata={"bbans": '{"family": "text"}'}))
    with pytest.raises(BadModel, match="lacks"):
        zoo.load(changed(tables__edges=None))
    with pytest.raises(BadModel, match="lacks the tensor"):
        zoo.load(changed(levels__0__region__0__bias=None))
    (tmp_path / zoo.WEIGHTS).write_bytes(b"weights")
    with pytest.raises(BadModel, match="not a bbans model"):
        zoo.load(tmp_path)


def test_tampered_weights_are_refused(tiny_models: Folders, changed) -> None:
    weight = load_file(tiny_models[2] / zoo.WEIGHTS)["levels.0.enter_d.weight"]
    with pytest.raises(BadModel, match=r"levels\.0\.enter_d: the model's weights are not exact"):
        zoo.load(changed(levels__0__enter_d__weight=np.full_like(weight, 3000)))
    with pytest.raises(InexactDevice):  # exact, but not the model it was
        zoo.load(changed(levels__0__enter_d__weight=np.roll(weight, 1, axis=0) // 4))


@pytest.mark.parametrize("described", ["[]", "3", "[" * 100_000, '{"family": []}', '{"family": "photo", "config": 8}'])
def test_descriptions_that_are_none(changed, described: str) -> None:
    with pytest.raises(BadModel):
        zoo.load(changed(metadata={"bbans": described}))


@pytest.mark.parametrize(
    "size", [{"channels": 10**9}, {"mixtures": 10**9}, {"distinct": 10**6}, {"blocks": [1, 10**6, 1]}, {"region": "8"}]
)
def test_sizes_that_are_none(changed, size: dict[str, object]) -> None:
    """Nothing is allocated for them."""
    config = {"channels": 8, "hidden": 4, "mixtures": 2, "latents": 2, "regional": 8, "blocks": [1, 1, 1]}
    with pytest.raises(BadModel, match=r"at most 4096|at most 32|sizes that"):
        zoo.load(changed(metadata={"bbans": json.dumps({"family": "photo", "config": config | size})}))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("upper", lambda upper: upper[:10]),
        ("upper", lambda upper: upper[::-1].copy()),
        ("upper", lambda upper: np.where(np.arange(len(upper)) == 2, upper[0] - 1, upper)),
        ("upper", lambda upper: upper + np.uint32(1)),
        ("upper", lambda upper: upper.astype(np.float32)),
        ("halves", lambda halves: halves[:5]),
        ("halves", lambda halves: -halves),
        ("halves", lambda halves: np.roll(halves, 1)),
        ("halves", lambda halves: halves.reshape(2, -1)),
        ("shifts", lambda shifts: shifts + np.int32(1)),
        ("shifts", lambda shifts: shifts[:3]),
        ("edges", lambda edges: edges[:3]),
        ("edges", lambda edges: edges[::-1].copy()),
        ("edges", lambda edges: edges * np.int32(2)),
        ("exp2", lambda exp2: exp2[:0]),
        ("exp2", lambda exp2: exp2 * np.uint32(0)),
        ("exp2", lambda exp2: exp2[::-1].copy()),
    ],
)
def test_tables_that_are_none(tiny_models: Folders, changed, name: str, change) -> None:
    table = load_file(tiny_models[2] / zoo.WEIGHTS)[f"tables.{name}"]
    with pytest.raises(BadModel):
        zoo.load(changed(**{f"tables__{name}": change(table)}))


def test_weights_of_other_types_are_refused(tiny_models: Folders, changed) -> None:
    """Reals would not be exact, and what is no number passes every comparison."""
    bias = load_file(tiny_models[2] / zoo.WEIGHTS)["levels.0.enter_d.bias"]
    with pytest.raises(BadModel, match="wrong type"):
        zoo.load(changed(levels__0__enter_d__bias=bias + np.float32(0.5)))
    with pytest.raises(BadModel, match="selftest"):
        zoo.load(changed(selftest=np.full(4, np.nan)))


def test_a_model_that_cannot_be_read_does_not_hide_the_others(
    tiny_models: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken" / zoo.WEIGHTS).mkdir(parents=True)
    shutil.copytree(tiny_models[2], tmp_path / "whole")
    monkeypatch.setenv("BBANS_MODELS", str(tmp_path))
    assert "whole" in [info.name for info in zoo.available()]
    whole = next(info for info in zoo.available() if info.name == "whole")
    assert zoo.load_by_id(whole.id, device="cpu").path == tmp_path / "whole"


def test_a_folder_to_search_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="no such folder"):
        zoo.load_by_id(bytes(8), search=tmp_path / "nowhere")
