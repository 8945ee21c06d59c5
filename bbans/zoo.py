"""Finds, identifies and loads models.

A model is a folder with `weights.safetensors` (integer weights, tables, known answers; its metadata hold the family and
the sizes), and for people `recipe.toml` and `card.md`; `float.safetensors`, where there is one, holds the float weights
the integers came from. Its id is a hash of `weights.safetensors`. torch is imported when a model is loaded, not before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bbans.codecs.latent import EDGES, LAST_EDGE
from bbans.codecs.tables import MASS, SCALES, UNIT, ScaleTables
from bbans.errors import BadBackend, BadModel, InexactDevice, ModelMissing

if TYPE_CHECKING:
    import torch

    from bbans.vae.bounds import Bounds
    from bbans.vae.distributions import Keep
    from bbans.vae.families import Network

DEFAULT = "photo"
LOGISTIC, NORMAL = "tables.", "tables.normal."  # what the names of a distribution's tables begin with
POWERS = 258  # how many there are in the table of powers of two
DIRECTIONS, FITS = "directions", "fits."  # a tensor of WEIGHTS, and what the names of others begin with
WEIGHTS, FLOAT_WEIGHTS = "weights.safetensors", "float.safetensors"
ID_BYTES = 8
_PLACES = (Path(__file__).parent / "_models", Path(__file__).parent.parent / "models")


@dataclass(frozen=True)
class ModelInfo:
    """A model that was found: its folder's name, its id, where it is and how large its weights are."""

    name: str
    id: bytes
    path: Path
    bytes: int


@dataclass(frozen=True)
class Tables:
    """What a decoder may not compute for itself. exp2: uint32, 2^(16 - i/16) for i = 0, 1, ...; normal: of models of
    the family `dense`."""

    logistic: ScaleTables
    edges: NDArray[np.int32]
    exp2: NDArray[np.uint32]
    normal: ScaleTables | None = None


@dataclass(frozen=True)
class Model:
    """A model ready to code with: exact networks on a device, and their tables.

    directions: int16 [codes, steps], of `bbans.image.tuning`, if the model has any; fits: tensors of
    `bbans.image.fitting`, by their names.
    """

    id: bytes
    name: str
    path: Path
    network: Network
    tables: Tables
    device: torch.device
    directions: NDArray[np.int16] | None = None
    fits: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @cached_property
    def float_network(self) -> Network | None:
        """The float model that the integers came from; None if its weights aren't there."""
        weights = self.path / FLOAT_WEIGHTS
        if not weights.exists():
            return None
        from safetensors.torch import load_file

        from bbans.vae.families import build, describe

        network = build(**describe(self.network))
        network.load_state_dict(load_file(weights))
        return network.eval().requires_grad_(False)

    def float_bounds(
        self, pixels: NDArray[np.uint8], *, particles: int = 1, seed: int = 0, keep: Keep | None = None
    ) -> Bounds | None:
        """Bounds in bits of pictures [n, h, w, 1 or 3] under the float model; None if its weights aren't there.

        particles, seed: of the samples of q that they are estimated with; keep: see `bbans.vae.bounds.measure`.
        """
        import torch

        from bbans.vae.bounds import measure
        from bbans.vae.distributions import keep_nothing

        with torch.random.fork_rng(devices=[]):
            network = self.float_network  # not made in inference mode: others may want gradients through it
            if network is None:
                return None
            torch.manual_seed(seed)
            with torch.inference_mode():
                return measure(network, torch.from_numpy(np.array(pixels)), particles, keep or keep_nothing)

    def float_elbo_bits(self, pixels: NDArray[np.uint8]) -> float | None:
        """−ELBO in bits of pixels [h, w, 1 or 3] under the float model; None if its weights aren't there."""
        bounds = self.float_bounds(pixels[None])
        return None if bounds is None else float(bounds.elbo[0])


def available(extra: Path | None = None) -> list[ModelInfo]:
    """Models in `extra`, in the folders of BBANS_MODELS and among the shipped ones; the first of a name wins."""
    found: dict[str, ModelInfo] = {}
    for folder in _folders(extra):
        if (name := _name(folder)) not in found:
            with contextlib.suppress(BadModel):  # one that can't be read is no reason not to use another
                found[name] = _info(folder)
    return list(found.values())


def load(
    name_or_path: str | Path | None = None,
    *,
    default: str = DEFAULT,
    device: str = "auto",
    threads: int | None = None,
) -> Model:
    """The model of a name, or in a folder; None is the one called `default`, which no folder is.

    A string without a separator names a folder only if it names none of the models that are found. Raises
    `ModelMissing`, `BadModel`, `InexactDevice` and `BadBackend`.
    """
    return _load(_folder_of(name_or_path, default), device, threads)


def find(name_or_path: str | Path) -> ModelInfo:
    """The model that `load` would load. Raises `ModelMissing` and `BadModel`."""
    return _info(_folder_of(name_or_path))


def _folder_of(name_or_path: str | Path | None, default: str = DEFAULT) -> Path:
    path = Path(name_or_path or default)
    holds_one = bool(name_or_path) and os.path.isfile(path / WEIGHTS)
    if holds_one and (isinstance(name_or_path, Path) or os.path.dirname(str(name_or_path))):
        return path
    known = available()
    for info in known:
        if info.name == str(path):
            return info.path
    if holds_one:
        return path
    names = ", ".join(sorted(info.name for info in known)) or "none"
    folder = f"neither a folder with {WEIGHTS} nor" if name_or_path else "the default is not"
    raise ModelMissing(f"no model {str(path)!r}: {folder} one of the models here ({names})")


def load_by_id(
    model_id: bytes, *, search: Path | None = None, device: str = "auto", threads: int | None = None
) -> Model:
    """The model that a file names, from `search`, BBANS_MODELS or the shipped ones. Raises `ModelMissing`."""
    if search is not None and not os.path.isdir(search):
        raise ModelMissing(f"{search}: no such folder to look for models in")
    for folder in _folders(search):
        if _is(folder, model_id):
            return _load(folder, device, threads)
    raise ModelMissing(
        f"the file needs model {model_id.hex()}, which is not here; name its folder with -m, or put it where "
        "BBANS_MODELS points"
    )


def _folders(extra: Path | None) -> Iterator[Path]:
    """Folders that hold a model: `extra` itself or below it, then BBANS_MODELS, then the shipped ones."""
    more = [Path(p) for p in os.environ.get("BBANS_MODELS", "").split(os.pathsep) if p]
    for place in [*([extra] if extra else []), *more, *_PLACES]:
        try:
            if (place / WEIGHTS).is_file():
                below = [place]
            else:
                below = sorted(p.parent for p in place.glob(f"*/{WEIGHTS}")) if place.is_dir() else []
        except OSError:  # a folder that may not be searched
            continue
        yield from below


def _info(folder: Path) -> ModelInfo:
    """Raises `BadModel`."""
    weights = folder / WEIGHTS
    return ModelInfo(_name(folder), _id(weights), folder, weights.stat().st_size)


def _name(folder: Path) -> str:
    return os.path.basename(os.path.abspath(folder))  # that of "." is not ""


def id_of(weights: bytes) -> bytes:
    """The id of the model whose `weights.safetensors` has these bytes."""
    return hashlib.sha256(weights).digest()[:ID_BYTES]


def _id(weights: Path) -> bytes:
    try:
        return id_of(weights.read_bytes())
    except OSError as error:
        raise BadModel(f"{weights}: cannot be read ({error.strerror})") from error


def _is(folder: Path, model_id: bytes) -> bool:
    try:
        return _id(folder / WEIGHTS) == model_id
    except BadModel:
        return False


def read_weights(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(metadata, tensors) of a model's weights, without torch. Raises `BadModel`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="numpy") as file:
            described = json.loads((file.metadata() or {})["bbans"])
            if not isinstance(described, dict):
                raise ValueError("its description is none")
            return described, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise BadModel(f"{folder / WEIGHTS}: not a bbans model ({error})") from error


def _tables(tensors: Mapping[str, NDArray[Any]], *, normal: bool) -> Tables:
    """The tables, which rise as CDFs do: with others, other symbols are popped than were pushed. Raises `BadModel`.

    normal: whether there must be some of the normal, too.
    """
    edges, exp2 = _row(tensors, "tables.edges", np.int32), _row(tensors, "tables.exp2", np.uint32)
    if len(edges) != EDGES or np.abs(edges.astype(np.int64)).max() > LAST_EDGE or (np.diff(edges) < 0).any():
        raise BadModel("edges of its latents' bins are in no order")
    if len(exp2) != POWERS or exp2[0] != 1 << 16 or (exp2[1:] > exp2[:-1]).any():
        raise BadModel("its powers of two are none")
    return Tables(_scales(tensors, LOGISTIC), edges, exp2, _scales(tensors, NORMAL) if normal else None)


def _scales(tensors: Mapping[str, NDArray[Any]], named: str) -> ScaleTables:
    """The tables of a distribution, whose names begin with `named`. Raises `BadModel`."""
    upper = _row(tensors, f"{named}upper", np.uint32)
    halves, shifts = _row(tensors, f"{named}halves", np.int32), _row(tensors, f"{named}shifts", np.int32)
    ends = np.cumsum(halves.astype(np.int64) + 1)
    if not (
        len(halves) == len(shifts) == SCALES
        and halves.min() > 0
        and 0 <= shifts.min() <= shifts.max() <= UNIT.bit_length() - 1
        and ends[-1] == len(upper)
        and (upper[ends - 1] == MASS).all()
        and (upper[ends - 1 - halves] == MASS // 2).all()
        and np.array_equal(np.flatnonzero(upper[1:] < upper[:-1]), ends[:-1] - 1)  # where the next table begins
    ):
        raise BadModel("tables of its distributions are none of CDFs")
    return ScaleTables.from_upper(upper, halves, shifts)


def _row(tensors: Mapping[str, NDArray[Any]], name: str, dtype: type[np.generic]) -> NDArray[Any]:
    """A tensor of one dimension. Raises `BadModel`."""
    if name not in tensors:
        raise BadModel(f"lacks {name}")
    if tensors[name].dtype != dtype or tensors[name].ndim != 1:
        raise BadModel(f"{name} is no row of {dtype.__name__}")
    return tensors[name]


def _load(folder: Path, device: str, threads: int | None) -> Model:
    import torch

    from bbans.exact.export import install
    from bbans.vae.families import build
    from bbans.vae.layers import channels_last

    if threads is not None:
        torch.set_num_threads(threads)
    described, tensors = read_weights(folder)
    try:
        with torch.device("meta"):  # its weights are replaced: only their shapes are needed
            network = build(described.get("family"), described.get("config"))
        tables = _tables(tensors, normal=described["family"] == "dense")
        known = _row(tensors, "selftest", np.uint64).tolist()
    except BadModel as error:
        raise BadModel(f"{folder / WEIGHTS}: {error}") from error
    others = ("tables.", "selftest", DIRECTIONS, FITS)
    install(network, {k: torch.from_numpy(v) for k, v in tensors.items() if not k.startswith(others)})
    network.eval().requires_grad_(False)
    if device not in ("auto", "cpu", "cuda"):
        raise BadModel(f"no device {device!r}: auto, cpu or cuda")
    place = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    if place.type == "cuda" and not torch.cuda.is_available():
        raise BadModel("no CUDA device here: use the device cpu")
    network = _proved(channels_last(network.to(place)), place, known)
    place = next(network.buffers()).device
    fits = {name: tensor for name, tensor in tensors.items() if name.startswith(FITS)}
    return Model(_id(folder / WEIGHTS), _name(folder), folder, network, tables, place, tensors.get(DIRECTIONS), fits)


def _proved(network: Network, place: torch.device, known: list[int]) -> Network:
    """The network with the fastest backend that gives the known answers, or with that which BBANS_BACKEND names.

    Raises `InexactDevice` and `BadBackend`.
    """
    from bbans.exact import backends
    from bbans.workers import warn_once

    forced = os.environ.get("BBANS_BACKEND")
    if forced and forced not in backends.BACKENDS:
        raise BadBackend(f"BBANS_BACKEND is {forced!r}, not one of {', '.join(backends.BACKENDS)}")
    wrong: list[str] = []
    for backend in [forced] if forced else backends.candidates(network, place):
        if backends.proved(network, backend, known):
            if wrong:
                warn_once(
                    f"{place} cannot compute exactly with {' and '.join(wrong)}: using {backend}, which is slower "
                    "(`bbans models --backends` tells more)"
                )
            return network
        wrong.append(backend)
    if forced:
        raise BadBackend(f"BBANS_BACKEND is {forced!r}, with which {place} cannot compute this model exactly")
    raise InexactDevice(f"this machine computes the model's networks wrongly, with {' and '.join(wrong)}")
