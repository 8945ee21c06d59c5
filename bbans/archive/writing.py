"""Makes an archive: plans the groups, chooses a model for each, has them coded, and writes them one after the other.

Knows the order of things; the things are in the other modules. Nothing is read but headers until all that can be known
to fail has been checked, and there is no archive until it is whole.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bbans.archive import sources
from bbans.archive.coding import Finder, Uncoded, encode
from bbans.archive.format import CHAIN, MAGIC, VERSION, Header, Index
from bbans.archive.plan import GROUP, Group, plan
from bbans.archive.sources import Input, Source
from bbans.errors import BadImage, BadOutput, ModelMissing
from bbans.image.files import atomic_file, check_output
from bbans.image.picture import Report
from bbans.workers import ordered

if TYPE_CHECKING:
    from bbans.image.weighted import Particles
    from bbans.zoo import Model


@dataclass(frozen=True)
class CreateReport(Report):
    """Where the bits of an archive went, and how many pictures and groups it has. models: names of those used."""

    images: int
    groups: int
    models: tuple[str, ...]


def create(
    out: str | os.PathLike[str],
    inputs: Input | Iterable[Input],
    *,
    model: Model | str | os.PathLike[str] | None = None,
    group: int = GROUP,
    particles: Particles | None = None,
    jobs: int = 1,
    force: bool = False,
) -> CreateReport:
    """Write an archive of all pictures that the inputs hold, in their order.

    inputs: paths of image files, folders, .npy and .npz files, or arrays (see `bbans.archive.sources`).
    model: a name, a folder, or what `bbans.zoo.load` returned; None is `photo`, which also codes what another doesn't
    take.
    group: pictures in a group at the most. particles: that each picture is coded with. jobs: processes, on which the
    bytes don't depend. With more than one, a script must guard its own work by `if __name__ == "__main__":`, as for
    all of multiprocessing.

    Raises `BadImage`, `TooLarge`, `ModelMissing`, `BadModel` and `BadOutput`. Then there is no archive.
    """
    path = Path(out)
    check_output(path, force=force)
    given = [inputs] if isinstance(inputs, (str, os.PathLike, np.ndarray)) else list(inputs)
    with contextlib.ExitStack() as opened:
        found = sources.find(given)
        for source in found:
            opened.callback(source.close)
        _check_not_among(path, found)
        groups = plan(found, group)
        models = _models(groups, model)
        if particles:
            _check_particles(models)
        return _write(path, groups, models, particles, jobs=jobs, force=force)


def _write(
    path: Path,
    groups: Sequence[Group],
    models: Sequence[Model],
    particles: Particles | None,
    *,
    jobs: int,
    force: bool,
) -> CreateReport:
    work = partial(encode, Finder(models), particles=particles)
    tasks = (Uncoded(g.kind, g.mode, m.id, g.read()) for g, m in zip(groups, models, strict=True))
    sizes: list[tuple[int, int]] = []
    pictures = dims = 0
    net = initial = 0.0
    with atomic_file(path, force=force) as file:
        file.write(MAGIC + bytes([VERSION]))
        with contextlib.closing(ordered(work, tasks, min(jobs, len(groups)))) as results:
            for group, model, coded in zip(groups, models, results, strict=True):
                header = Header(
                    group.kind,
                    group.mode,
                    group.width,
                    group.height,
                    model.id,
                    group.runs,
                    group.names,
                    len(coded.payload),
                    coded.payload_sum,
                    coded.pixels_sum,
                    particles=group.kind == CHAIN and particles is not None,
                )
                packed = header.pack()
                file.write(packed + coded.payload)
                sizes.append((len(packed), len(coded.payload)))
                pictures, dims = pictures + header.count, dims + header.dims
                net, initial = net + coded.net, initial + coded.initial
        file.write(Index(pictures, tuple(sizes)).pack())
        total = 8 * file.tell()
    return CreateReport(
        dims=dims,
        net=net,
        initial=initial,
        elbo=None,
        total=total,
        images=pictures,
        groups=len(groups),
        models=tuple(dict.fromkeys(model.name for model in models)),
    )


def _models(groups: Sequence[Group], model: Model | str | os.PathLike[str] | None) -> list[Model]:
    """For each group the model that codes it: the one that was asked for, or else `photo`.

    Raises `BadImage` when neither takes a group's pictures, and `ModelMissing`.
    """
    from bbans.image.codec import takes
    from bbans.zoo import load

    def load_photo() -> Model | None:
        with contextlib.suppress(ModelMissing):
            return load()
        return None

    asked: Model = load(_name(model)) if model is None or isinstance(model, (str, os.PathLike)) else model
    photo = cache(load_photo)
    chosen: dict[tuple[int, int, str], Model] = {}
    for group in groups:
        kind = (group.height, group.width, group.mode)
        if kind not in chosen:
            found = asked if takes(asked, *kind) else photo()
            if found is None or not takes(found, *kind):
                what = f"{group.width} x {group.height} of mode {group.mode}"
                others = f"; nor does {found.name}" if found and found.id != asked.id else ""
                raise BadImage(
                    f"{group.first}: the model {asked.name} takes no pictures of {what}{others}; -m names another, "
                    "`bbans models` lists them"
                )
            chosen[kind] = found
    return [chosen[group.height, group.width, group.mode] for group in groups]


def _check_particles(models: Iterable[Model]) -> None:
    """Raises `BadModel` when one takes none."""
    from bbans.image.codec import check_particles

    for model in models:
        check_particles(model)


def _name(model: str | os.PathLike[str] | None) -> str | Path | None:
    return Path(model) if isinstance(model, os.PathLike) else model


def _check_not_among(path: Path, found: Iterable[Source]) -> None:
    """Raises `BadOutput` when the archive would overwrite a picture that goes into it."""
    out = os.path.realpath(path)
    for source in found:
        if source.path and os.path.realpath(source.path) == out:
            raise BadOutput(f"{path}: would overwrite one of its own pictures")
