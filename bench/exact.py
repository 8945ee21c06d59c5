"""Is it the same file everywhere? One picture under differing settings, each in a process of its own; bytes compared.

`python -m bench.exact [IMAGE]`: threads, instruction sets of all libraries, oneDNN off, the float64 fallback, and 16
tiles in one batch (where NNPACK would take over). The first setting of each group writes the reference; every other
one must write the same bytes, and decode the reference. So each decodes the other's. Exit code 1 on any difference.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from bbans.image.files import read_picture, write_picture
from bbans.image.picture import Picture
from bench import common
from bench.one_setting import Job

QUICK = (160, 224)  # rows and columns

# What torch's own kernels, oneDNN, MKL and NumPy call an instruction set; the highest of them last.
ISAS = (
    ("default", "SSE41", "SSE4_2"),
    ("avx2", "AVX2", "AVX2"),
    ("avx512", "AVX512_CORE", "AVX512"),
)
_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "NPY_DISABLE_CPU_FEATURES")


@dataclass(frozen=True)
class Setting:
    """Under what to encode; see `Job`. Settings of one `tiles` group (None, or any) must agree."""

    name: str
    threads: int = 1
    onednn: bool = True
    float64: bool = False
    tiles: str | None = None
    isa: Mapping[str, str] = field(default_factory=dict)

    @property
    def group(self) -> str:
        return "16 tiles" if self.tiles else "picture"

    def job(self, image: Path, model: str | None, reference: Path | None, output: Path) -> Job:
        return Job(
            image=str(image),
            model=model,
            threads=self.threads,
            onednn=self.onednn,
            float64=self.float64,
            tiles=self.tiles,
            reference=None if reference is None else str(reference),
            output=str(output),
        )


def settings() -> Iterator[Setting | str]:
    """All settings that this machine has; a line of text for each that it lacks."""
    yield Setting("1 thread")
    yield Setting("2 threads", threads=2)
    yield from _isa_settings()
    yield Setting("oneDNN off", onednn=False)
    yield Setting("oneDNN off, 2 threads", threads=2, onednn=False)
    yield Setting("float64 fallback", float64=True)
    yield Setting("16 tiles, one by one", tiles="single")
    yield Setting("16 tiles, one batch", tiles="batch")
    yield Setting("16 tiles, one batch, oneDNN off, NNPACK on", onednn=False, tiles="batch")
    yield Setting("16 tiles, one batch, oneDNN off, NNPACK on, 2 threads", threads=2, onednn=False, tiles="batch")
    yield Setting("16 tiles, one batch, float64 fallback", float64=True, tiles="batch")


def _isa_settings() -> Iterator[Setting | str]:
    import torch

    highest = os.environ.get("ATEN_CPU_CAPABILITY") or torch.backends.cpu.get_cpu_capability().lower()
    known = [aten for aten, _, _ in ISAS]
    have = known.index(highest) if highest in known else 0
    for i, (aten, onednn, mkl) in enumerate(ISAS):
        if i > have:
            yield f"{aten}: this CPU lacks it"
            continue
        isa = dict(zip(_VARIABLES, (aten, onednn, mkl, " ".join(_numpy_features_above(aten))), strict=True))
        yield Setting(f"instructions: {aten}", isa=isa)
        yield Setting(f"instructions: {aten}, oneDNN off", onednn=False, isa=isa)


def _numpy_features_above(aten: str) -> list[str]:
    """What NumPy would use here beyond the instruction set, and can be told not to (the baseline it can't)."""
    core = importlib.import_module("numpy._core._multiarray_umath")
    here = [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]
    above = {"default": here, "avx2": [name for name in here if "AVX512" in name or name == "X86_V4"], "avx512": []}
    return above[aten]


def run(job: Job, setting: Setting) -> dict[str, Any] | str:
    """What the process says, or why it failed."""
    environment = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
    # threads that wait without spinning, because the cores may have other work to do
    environment |= {"OMP_NUM_THREADS": str(setting.threads), "OMP_WAIT_POLICY": "passive", **setting.isa}
    command = [sys.executable, "-m", "bench.one_setting", json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return json.loads(done.stdout)


def check(setting: Setting, image: Path, model: str | None, folder: Path, digests: dict[str, str]) -> bool:
    """Run a setting and print its line; the first of its group sets the group's digest."""
    first = setting.group not in digests
    reference = folder / setting.group
    said = run(setting.job(image, model, None if first else reference, reference if first else folder / "own"), setting)
    if isinstance(said, str):
        print(f"{'-':16}  FAILED   {setting.name}: {said}", flush=True)
        return False
    same = digests.setdefault(setting.group, said["digest"]) == said["digest"]
    strange = [] if said["decodes"] else ["does not decode the reference"]
    if said["float64"] != setting.float64:
        strange.append("fell back to float64")
    if setting.isa and said["isa"].lower() != setting.isa["ATEN_CPU_CAPABILITY"]:
        strange.append(f"ran with {said['isa']}")
    verdict = "DIFFERS" if not same else "STRANGE" if strange else "ok"
    print(f"{said['digest']}  {verdict:7}  {'; '.join([setting.name, *strange])}", flush=True)
    return verdict == "ok"


def cut(picture: Picture, size: tuple[int, int]) -> Picture:
    """A piece of the picture's middle, of at most that size."""
    height, width = (min(a, b) for a, b in zip(size, (picture.height, picture.width), strict=True))
    y, x = (picture.height - height) // 2, (picture.width - width) // 2
    return Picture(np.ascontiguousarray(picture.pixels[y : y + height, x : x + width]), picture.mode)


@click.command()
@click.argument("image", required=False, type=click.Path(path_type=Path))
@common.model_option
@click.option("--quick", is_flag=True, help=f"Only a piece of {QUICK[1]} x {QUICK[0]} pixels.")
def main(image: Path | None, model: str | None, quick: bool) -> None:
    """Compare the bytes of IMAGE under differing settings.  [default: kodak/kodim01.png in the data folder]"""
    path = common.images([image] if image else [], "kodak/kodim01.png")[0]
    picture = read_picture(path)
    if quick:
        picture = cut(picture, QUICK)
    print(f"{path}: {picture.width} x {picture.height} {picture.mode}; {common.machine_line()}", flush=True)
    digests: dict[str, str] = {}
    count = failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "picture.png"
        write_picture(picture, source)
        for setting in settings():
            if isinstance(setting, str):
                print(f"{'-':16}  skipped  {setting}")
                continue
            count += 1
            failed += not check(setting, source, model, folder, digests)
    print(f"{count} settings: " + (f"{failed} not as they should be" if failed else "all the same"))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
