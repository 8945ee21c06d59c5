"""The figures of the laboratory, by matplotlib (`pip install '.[plots]'`), all in one style."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt

WIDTH, HEIGHT, DPI = 3.2, 2.6, 110  # of one panel, in inches
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of logarithmic axes

Floats = NDArray[np.floating[Any]]


def panels(rows: int, columns: int, *, height: float = HEIGHT) -> tuple[Any, Any]:
    """A figure and its axes [rows, columns]."""
    return plt.subplots(rows, columns, figsize=(WIDTH * columns, height * rows), squeeze=False, layout="constrained")


def save(figure: Any, path: Path) -> None:
    """As PNG of up to 256 colours, without a date: small, and the same figure is the same file."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DPI)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def against_normal(path: Path, z: Floats, densities: Mapping[str, Floats]) -> None:
    """Densities over z, each beside that of N(0, 1)."""
    figure, axes = panels(1, len(densities))
    for axis, (name, density) in zip(axes[0], densities.items(), strict=True):
        axis.fill_between(z, density, alpha=0.5)
        axis.plot(z, np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), color="black")
        axis.set_title(name)
        axis.set_xlabel("z")
    save(figure, path)


def images(path: Path, rows: Mapping[str, Sequence[Floats]], heads: Sequence[str], *, size: float = 1.9) -> None:
    """Square pictures, [h, w] on the scale of the first of their row or [h, w, 3], as a table; upwards is up."""
    figure, axes = plt.subplots(
        len(rows), len(heads), figsize=(size * len(heads), size * len(rows)), squeeze=False, layout="constrained"
    )
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        most = float(np.max(row[0]))
        for axis, picture in zip(line, row, strict=True):
            axis.imshow(picture, origin="lower", vmin=0, vmax=most, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name)
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head)
    save(figure, path)


def lines(
    path: Path, x: Floats, curves: Mapping[str, Floats], *, of: tuple[str, str], marks: Mapping[str, float], top: float
) -> None:
    """Curves over a logarithmic x. of: what x and y are; marks: vertical lines, by their names; top: where y ends."""
    figure, axes = plt.subplots(figsize=(2 * WIDTH, 1.3 * HEIGHT), layout="constrained")
    for name, y in curves.items():
        axes.plot(x, y, label=name)
    for (name, at), style in zip(marks.items(), ("--", ":", "-."), strict=False):
        axes.axvline(at, color="black", linestyle=style, linewidth=1, label=name)
    axes.set(xscale="log", xlabel=of[0], ylabel=of[1], ylim=(0, top))
    ticks = [tick for tick in TICKS if x[0] <= tick <= x[-1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.legend(fontsize="small")
    save(figure, path)


def picture_rows(path: Path, rows: Mapping[str, Floats]) -> None:
    """Grey pictures [n, h, w] of 0..255, each row with its name."""
    figure, axes = plt.subplots(len(rows), 1, figsize=(2 * WIDTH, 0.55 * len(rows)), layout="constrained")
    for axis, (name, pictures) in zip(axes, rows.items(), strict=True):
        _show(axis, sheet(pictures[None]))
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
    save(figure, path)


def sheets(path: Path, of: Mapping[str, Floats]) -> None:
    """Grey pictures [rows, columns, h, w] of 0..255, one panel for each name."""
    figure, axes = panels(1, len(of), height=WIDTH + 0.2)
    for axis, (name, pictures) in zip(axes[0], of.items(), strict=True):
        _show(axis, sheet(pictures))
        axis.set_title(name, fontsize="medium")
    save(figure, path)


def latent_map(path: Path, z: Floats, labels: NDArray[Any], decoded: Floats, reach: float) -> None:
    """Points z [n, 2] in the colours of their labels 0..9, beside pictures decoded from -reach..reach squared."""
    figure, axes = panels(1, 2, height=WIDTH)
    for label in range(10):
        mine = z[labels == label]
        axes[0, 0].scatter(mine[:, 0], mine[:, 1], s=2, color=f"C{label}", label=str(label))
    axes[0, 0].legend(fontsize="x-small", markerscale=3, ncols=2)
    axes[0, 0].set(xlabel="z1", ylabel="z2", aspect="equal")
    _show(axes[0, 1], sheet(decoded))
    axes[0, 1].set(xlabel=f"z1 = −{reach:g} to {reach:g}", ylabel=f"z2 = −{reach:g} to {reach:g}")
    save(figure, path)


def sheet(pictures: Floats) -> Floats:
    """[rows, columns, h, w] as one picture."""
    rows, columns, h, w = pictures.shape
    return pictures.transpose(0, 2, 1, 3).reshape(rows * h, columns * w)


def _show(axis: Any, picture: Floats) -> None:
    axis.imshow(picture, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
