"""Is it the same file everywhere? One picture under differing settings, each in a process of its own; bytes compared.

`python -m bench.exact [IMAGE]`: threads, instruction sets of all libraries, oneDNN off, each backend
(`bbans.exact.backends`), int8 with each instruction set that oneDNN has for it, both coders (`bbans.image.loops`), and
16 tiles in one batch (where NNPACK would take over). The first setting of each group writes the reference; every other
one must write the same bytes, and decode the reference. So each decodes the other's. Exit code 1 on any difference.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from bbans import zoo
from bbans.exact import backends
from bbans.exact.bytes import IntByteConv
from bbans.image import loops
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
# What oneDNN calls those that it has kernels of int8 for, and what they need of a CPU, in the words of /proc/cpuinfo.
INT8_ISAS = {
    "SSE41": "sse4_1",
    "AVX2": "avx2",
    "AVX2_VNNI": "avx_vnni",
    "AVX512_CORE": "avx512bw",
    "AVX512_CORE_VNNI": "avx512_vnni",
    "AVX512_CORE_AMX": "amx_int8",
}
_VERBOSE = "onednn_verbose"  # what lines begin with that name a kernel
_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "NPY_DISABLE_CPU_FEATURES")


@dataclass(frozen=True)
class Setting:
    """Under what to encode; see `Job`. Settings of one `tiles` group (None, or any) must agree.

    backend: None for the one that is chosen when the model is loaded. isa: environment variables. kernels: what the
    names of int8 kernels must end with, if they are looked at.
    """

    name: str
    threads: int = 1
    onednn: bool = True
    backend: str | None = None
    tiles: str | None = None
    kernels: str | None = None
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
            tiles=self.tiles,
            reference=None if reference is None else str(reference),
            output=str(output),
        )


def settings(on_bytes: bool, quick: bool) -> Iterator[Setting | str]:
    """All settings that this machine has; a line of text for each that it lacks.

    on_bytes: whether the model has layers on bytes, without which there is no int8; quick: 2 threads come only with 16
    tiles, and 16 tiles only with 2 threads, for each backend and each of its instruction sets.
    """
    yield Setting("1 thread")
    yield Setting("2 threads", threads=2)
    yield from _isa_settings()
    for coder in (loops.NUMPY, loops.NUMBA):
        if coder == loops.NUMBA and importlib.util.find_spec(coder) is None:
            yield "coder numba: not installed"
            continue
        for threads in (1, 2):
            yield _of(f"coder {coder}", threads, None, isa={loops.CODER: coder})
    yield Setting("oneDNN off", onednn=False)
    yield Setting("oneDNN off, 2 threads", threads=2, onednn=False)
    yield Setting("16 tiles, one by one", tiles="single")
    yield Setting("16 tiles, one batch", tiles="batch")
    yield Setting("16 tiles, one batch, oneDNN off, NNPACK on", onednn=False, tiles="batch")
    yield Setting("16 tiles, one batch, oneDNN off, NNPACK on, 2 threads", threads=2, onednn=False, tiles="batch")
    several = [(1, None), (2, "batch")] if quick else [*itertools.product((1, 2), (None, "batch"))]
    for backend in backends.BACKENDS:
        if backend == backends.INT8 and not on_bytes:
            yield "int8: the model has no layers on bytes"
            continue
        for threads, tiles in several:
            yield _of(f"backend {backend}", threads, tiles, backend=backend)
    yield from _int8_settings(several) if on_bytes else ()


def _of(name: str, threads: int, tiles: str | None, **options: Any) -> Setting:
    parts = [name, *(["16 tiles, one batch"] if tiles else []), *([f"{threads} threads"] if threads > 1 else [])]
    return Setting(", ".join(parts), threads=threads, tiles=tiles, **options)


def _int8_settings(several: list[tuple[int, str | None]]) -> Iterator[Setting | str]:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        yield "instruction sets of int8: not known without /proc/cpuinfo"
        return
    flags = {*info.read_text().split()}
    for isa, flag in INT8_ISAS.items():
        if flag not in flags:
            yield f"int8 with {isa}: this CPU lacks it"
            continue
        variables = {"ONEDNN_MAX_CPU_ISA": isa, "ONEDNN_VERBOSE": "profile_create"}
        for threads, tiles in several:
            # "core" may be left out, as in avx512_core_vnni, whose kernels are called by what was added last
            yield _of(f"int8 with {isa}", threads, tiles, backend=backends.INT8, isa=variables, kernels=isa.lower())


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
    """What the process says, with the names of the kernels of int8 that it used; or why it failed."""
    environment = {
        name: value for name, value in os.environ.items() if name not in (*_VARIABLES, "BBANS_BACKEND", loops.CODER)
    }
    # threads that wait without spinning, because the cores may have other work to do
    environment |= {"OMP_NUM_THREADS": str(setting.threads), "OMP_WAIT_POLICY": "passive", **setting.isa}
    environment |= {"BBANS_BACKEND": setting.backend} if setting.backend else {}
    command = [sys.executable, "-m", "bench.one_setting", json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    lines = done.stdout.splitlines()
    kernels = (re.search(r",convolution,([^,]+),.*src:?_?u8", line) for line in lines if line.startswith(_VERBOSE))
    said = next(line for line in lines if not line.startswith(_VERBOSE))
    return {**json.loads(said), "kernels": sorted({found[1] for found in kernels if found})}


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
    strange += said["warnings"]
    if setting.backend and said["backend"] != setting.backend:
        strange.append(f"computed in {said['backend']}")
    if (isa := setting.isa.get("ATEN_CPU_CAPABILITY")) and said["isa"].lower() != isa:
        strange.append(f"ran with {said['isa']}")
    if setting.kernels and not any(name.endswith(setting.kernels) for name in said["kernels"]):
        strange.append("another instruction set's kernels")
    told = [said["backend"], *said["kernels"]] if not setting.backend or setting.kernels else []
    verdict = "DIFFERS" if not same else "STRANGE" if strange else "ok"
    line = "; ".join([setting.name, *strange]) + (f" ({', '.join(told)})" if told else "")
    print(f"{said['digest']}  {verdict:7}  {line}", flush=True)
    return verdict == "ok"


def cut(picture: Picture, size: tuple[int, int]) -> Picture:
    """A piece of the picture's middle, of at most that size."""
    height, width = (min(a, b) for a, b in zip(size, (picture.height, picture.width), strict=True))
    y, x = (picture.height - height) // 2, (picture.width - width) // 2
    return Picture(np.ascontiguousarray(picture.pixels[y : y + height, x : x + width]), picture.mode)


@click.command()
@click.argument("image", required=False, type=click.Path(path_type=Path))
@common.model_option
@click.option("--quick", is_flag=True, help=f"Only a piece of {QUICK[1]} x {QUICK[0]} pixels, and fewer settings.")
def main(image: Path | None, model: str | None, quick: bool) -> None:
    """Compare the bytes of IMAGE under differing settings.  [default: kodak/kodim01.png in the data folder]"""
    path = common.images([image] if image else [], "kodak/kodim01.png")[0]
    picture = read_picture(path)
    if quick:
        picture = cut(picture, QUICK)
    print(f"{path}: {picture.width} x {picture.height} {picture.mode}; {common.machine_line()}", flush=True)
    layers = zoo.load(model, device="cpu").network.modules()
    on_bytes = any(isinstance(layer, IntByteConv) for layer in layers)
    digests: dict[str, str] = {}
    count = failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "picture.png"
        write_picture(picture, source)
        for setting in settings(on_bytes, quick):
            if isinstance(setting, str):
                print(f"{'-':16}  skipped  {setting}")
                continue
            count += 1
            failed += not check(setting, source, model, folder, digests)
    print(f"{count} settings: " + (f"{failed} not as they should be" if failed else "all the same"))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
