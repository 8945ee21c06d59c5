"""The figures of the laboratory, by matplotlib (`pip install '.[plots]'`), all in one style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

matplotlib.use("Agg")
from matplotlib import pyplot as plt

WIDTH, HEIGHT, DPI = 3.2, 2.6, 110  # of one panel, in inches

Floats = NDArray[np.floating[Any]]


def panels(rows: int, columns: int, *, height: float = HEIGHT) -> tuple[Any, Any]:
    """A figure and its axes [rows, columns]."""
    return plt.subplots(rows, columns, figsize=(WIDTH * columns, height * rows), squeeze=False, layout="constrained")


def save(figure: Any, path: Path) -> None:
    """As PNG, without a date: the same figure is the same file."""
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)


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
