"""A diagnosis in pictures, by matplotlib: what latents tell, where pictures lie, what the model makes of them.

Knows what was found, and what models can show of themselves: `bbans.image.sampling`, and means of p(x | z).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bbans.errors import BadOutput, BbansError

if TYPE_CHECKING:
    from bbans.cli.diagnose import Diagnosis
    from bbans.zoo import Model

KL, MAP, RECONSTRUCTIONS, SAMPLES = "kl.png", "latents.png", "reconstructions.png", "samples.png"
SHOWN = 16  # pictures of a sheet


def prepare(folder: Path, *, force: bool) -> None:
    """Raises `BbansError` for what would come of it in the end: no matplotlib, no folder, files that exist."""
    from bbans.image.files import check_output

    _pyplot()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOutput(f"{folder}: cannot be made a folder ({error.strerror})") from error
    for name in (KL, MAP, RECONSTRUCTIONS, SAMPLES):
        check_output(folder / name, force=force)


def draw(found: Diagnosis, model: Model, folder: Path, seed: int) -> list[str]:
    """Write what can be shown of the model, over what exists; the names of the files."""
    from bbans.image.files import write_bytes
    from bbans.image.sampling import sample

    figures = {}
    if found.anatomy.layers:
        figures[KL] = _bars(found)
    means = [*found.anatomy.means.values()]
    if len(means) == 1 and means[0].shape[1:] == (2, 1):
        figures[MAP] = _map(means[0][:, :, 0], found)
    if (pairs := _reconstructed(found, model)) is not None:
        figures[RECONSTRUCTIONS] = _sheets({"pictures": pairs[0], "means given their latents": pairs[1]})
    drawn = {
        "samples": sample(model, SHOWN, seed),
        "means given the same latents": sample(model, SHOWN, seed, mean=True),
    }
    figures[SAMPLES] = _sheets(drawn)
    for name, figure in figures.items():
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=100)
        _pyplot().close(figure)
        write_bytes(folder / name, file.getbuffer(), force=True)
    return [*figures]


def _pyplot() -> Any:
    """Raises `BbansError` without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise BbansError("plots need matplotlib: pip install 'bbans[plots]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _bars(found: Diagnosis) -> Any:
    """The KL of each latent, the largest first, a row for each layer."""
    from bbans.vae.bounds import DEAD

    layers = found.anatomy.layers
    figure, rows = _pyplot().subplots(
        len(layers), figsize=(8, 1 + 2 * len(layers)), layout="constrained", squeeze=False
    )
    for axes, (name, layer) in zip(rows[:, 0], layers.items(), strict=True):
        each = np.sort(layer.each)[::-1]
        axes.bar(np.arange(len(each)), each, color=np.where(each < DEAD, "tab:red", "tab:blue"))
        axes.set_title(f"{name}: bits of each latent; {layer.dead} of {len(each)} dead (red)", fontsize=9)
    return figure


def _map(means: np.ndarray[Any, Any], found: Diagnosis) -> Any:
    """Where pictures lie in a plane of latents. means: [N, 2]."""
    figure, axes = _pyplot().subplots(figsize=(7, 6), layout="constrained")
    rates = found.anatomy.bits / found.pictures[0][0].numel()
    points = axes.scatter(*means.T, c=rates, s=12, cmap="viridis")
    axes.set_aspect("equal")
    axes.set_title("means of q(z | x)", fontsize=9)
    figure.colorbar(points, ax=axes, label="−ELBO, bits per dim")
    return figure


def _reconstructed(found: Diagnosis, model: Model) -> list[Any] | None:
    """Pictures, and the means of p(x | z) for a sample of q(z | x), uint8 [n, h, w, 1] each, if a model has these."""
    import torch

    from bbans.vae.dense import DenseVAE
    from bbans.vae.families import picture_planes
    from bbans.vae.objectives import dense_mean, draw_dense

    network = model.float_network
    if not isinstance(network, DenseVAE):  # of a lattice, each phase sees the pixels of those before it
        return None
    pixels = found.pictures[0][:SHOWN]
    with torch.inference_mode():
        planes = picture_planes(network, pixels)
        z, _ = draw_dense(network, planes.flatten(1))
        means = dense_mean(network, network.decode(z[0])).reshape(planes.shape).permute(0, 2, 3, 1)
        inputs = planes.permute(0, 2, 3, 1)
    shares = means / ((1 << network.config.depth) - 1)
    return [x.round().to(torch.uint8).cpu().numpy() for x in (inputs, 255 * shares)]


def _sheets(pictures: dict[str, Any]) -> Any:
    """Sheets of pictures [n, h, w, c], one beside the other."""
    from bbans.image.contact import contact_sheet

    figure, columns = _pyplot().subplots(1, len(pictures), figsize=(6 * len(pictures), 6.4), layout="constrained")
    for axes, (title, each) in zip(columns, pictures.items(), strict=True):
        sheet = contact_sheet(each)
        axes.imshow(sheet if sheet.shape[-1] == 3 else sheet[..., 0], cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    return figure
