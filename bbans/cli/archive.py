"""`bbans archive`: many pictures in one file, which is smaller than one file for each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bbans.cli import shared

if TYPE_CHECKING:
    from bbans.archive import Entry, Outcome

SUFFIX = ".bbansa"

archive_argument = click.argument("path", metavar="ARCHIVE", type=shared.any_path)
jobs_option = click.option(
    "-j", "--jobs", type=click.IntRange(min=1), metavar="N", help="Processes to work in.  [default: one for each core]"
)
keep_going_option = click.option(
    "--keep-going", is_flag=True, help="Take what is whole from a damaged archive, and name what is lost."
)


@click.group()
def archive() -> None:
    """Keep many images in one file, in which small ones take less room than each in a file of its own.

    \b
    bbans archive create album.bbansa album
    bbans archive extract album.bbansa -o copy
    """


@archive.command()
@click.argument("out", metavar=f"OUT{SUFFIX}", type=shared.any_path)
@shared.inputs_argument
@shared.model_option
@shared.force_option
@click.option(
    "--group",
    type=click.IntRange(1, 1 << 16),
    metavar="N",
    help="Images that are coded together, at the most.  [default: 1000]",
)
@shared.particles_options
@jobs_option
@shared.json_option
def create(
    out: Path,
    inputs: tuple[Path, ...],
    model: str | None,
    force: bool,
    group: int | None,
    particles: int | None,
    coupled: bool | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Make an archive of image files, folders of them, and arrays in .npy and .npz files.

    Takes images of Pillow's modes 1, L and RGB, without alpha, palette or 16 bits. They keep their pixels, order and
    names (the paths as they are given, as with tar and zip), but no metadata. Arrays are uint8 [n, h, w] or
    [n, h, w, 3], or bool [n, h, w]; of an .npz it is the one called images, or the only one. Its images are called
    digits/00042, for digits.npz.

    \b
    bbans archive create album.bbansa album photo.png
    bbans archive create digits.bbansa digits.npz -m mnist
    """
    if out.suffix != SUFFIX:
        raise click.UsageError(f"the first name is the archive's, which ends in {SUFFIX}; '{out}' does not")

    from bbans import archive as archives
    from bbans.archive.plan import GROUP
    from bbans.workers import cores

    begin = time.perf_counter()
    how: dict[str, Any] = {"group": group or GROUP, "particles": shared.particles_of(particles, coupled)}
    report = archives.create(out, inputs, model=model, **how, jobs=jobs or cores(), force=force)
    size, rates = report.total // 8, report.per_dim()
    if as_json:
        shared.say_json(
            {
                "output": str(out),
                "images": report.images,
                "dims": report.dims,
                "groups": report.groups,
                "models": list(report.models),
                "bytes": size,
                **{word: rates[word] for word in ("net", "initial", "container", "total")},
                "seconds": round(time.perf_counter() - begin, 4),
            }
        )
    else:
        by = " and ".join(report.models)
        counted = _counted(report.images, report.groups)
        shared.say(f"{out}: {counted} by {by}, {size} bytes, {rates['total']:.3f} bits per dim")


@archive.command("list")
@archive_argument
@shared.json_option
def list_(path: Path, as_json: bool) -> None:
    """Tell what an archive holds, without decoding it.

    \b
    bbans archive list album.bbansa
    """
    from bbans.archive import read
    from bbans.zoo import available

    opened = read(path)
    models = {model.id: model.name for model in available()}
    for entry in opened.entries:
        if as_json:
            shared.say_json(
                {
                    "position": entry.position,
                    **_described(entry),
                    "group": entry.group,
                    "kind": entry.kind,
                    "model": models.get(entry.model_id),
                    "model_id": entry.model_id.hex(),
                }
            )
        else:
            size = f"{entry.width} x {entry.height} {entry.mode}"
            model = models.get(entry.model_id, entry.model_id.hex())
            shared.say(f"{entry.position:>7}  {size:>17}  group {entry.group:<4}  {model:<16}  {entry.name}")
    groups, total = len(opened.groups), 8 * opened.size / opened.dims
    if as_json:
        shared.say_json(
            {
                "input": str(path),
                "images": opened.images,
                "dims": opened.dims,
                "groups": groups,
                "bytes": opened.size,
                "total": total,
            }
        )
    else:
        shared.say(f"{path}: {_counted(opened.images, groups)}, {opened.size} bytes, {total:.3f} bits per dim")


@archive.command()
@archive_argument
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option(
    "-o",
    "--output",
    type=shared.any_path,
    help="A folder, or an .npy file to hold images of one size as one array.  [default: the current folder]",
)
@shared.search_option
@shared.force_option
@keep_going_option
@jobs_option
@shared.json_option
def extract(
    path: Path,
    names: tuple[str, ...],
    output: Path | None,
    model: Path | None,
    force: bool,
    keep_going: bool,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Extract all images, or those of some names and folders in the archive.

    Names that end in .png, .bmp, .tif, .tiff, .ppm or .pgm stay as they are and say the format; behind others, .png is
    written: a.jpg becomes a.jpg.png.

    \b
    bbans archive extract album.bbansa                     all, into this folder
    bbans archive extract album.bbansa album/2024 -o copy  those of a folder
    bbans archive extract digits.bbansa -o digits.npy      as an array
    """
    from bbans import archive as archives
    from bbans.workers import cores

    opened = archives.read(path, keep_going=keep_going)
    target = output or Path()
    settings: dict[str, Any] = {
        "force": force,
        "keep_going": keep_going,
        "jobs": jobs or cores(),
        "search": model,
    }
    if target.suffix.lower() == ".npy" and not target.is_dir():
        outcome = archives.extract_array(opened, target, names, **settings)
        if as_json:
            shared.say_json({"input": str(path), "output": str(target), "images": outcome.images})
    else:

        def tell(entry: Entry, file: Path) -> None:
            if as_json:
                shared.say_json({"input": str(path), "output": str(file), **_described(entry)})

        outcome = archives.extract(opened, target, names, tell=tell, **settings)
    if not as_json:
        shared.say(f"{path} -> {target}: {_counted(outcome.images)}")
    _end(path, outcome, as_json)


@archive.command()
@archive_argument
@shared.search_option
@keep_going_option
@jobs_option
@shared.json_option
def test(path: Path, model: Path | None, keep_going: bool, jobs: int | None, as_json: bool) -> None:
    """Decode an archive and check every checksum; write nothing.

    \b
    bbans archive test album.bbansa
    """
    from bbans.archive import check, read
    from bbans.workers import cores

    outcome = check(read(path, keep_going=keep_going), keep_going=keep_going, jobs=jobs or cores(), search=model)
    if as_json:
        shared.say_json({"input": str(path), "images": outcome.images, "ok": not outcome.losses})
    else:
        shared.say(f"{path}: {_counted(outcome.images)} ok")
    _end(path, outcome, as_json)


def _end(path: Path, outcome: Outcome, as_json: bool) -> None:
    """Tell what was lost; then the exit code is 1."""
    for loss in outcome.losses:
        shared.complain(f"{path}: {loss.what}")
        if as_json:
            shared.say_json({"input": str(path), "error": loss.what, "lost": list(loss.names)})
    if outcome.losses:
        click.get_current_context().exit(1)


def _described(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "width": entry.width, "height": entry.height, "mode": entry.mode}


def _counted(images: int, groups: int | None = None) -> str:
    counted = f"{images} image" + "s" * (images != 1)
    return counted if groups is None else f"{counted} in {groups} group" + "s" * (groups != 1)
