"""A diagnosis in words, and as what JSON can say. Knows what was found, nothing of how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bbans.cli.diagnose import Diagnosis
    from bbans.vae.diagnosis import Layer, Rate, Surgery

NAMES = 31  # characters of a line's name


def lines(found: Diagnosis) -> Iterator[str]:
    """A table: bits per dim with standard errors, bytes of a picture, and what there is to say."""
    anatomy = found.anatomy
    yield f"{found.model} ({found.family}), {len(anatomy.bits)} of {found.available} pictures, {_size(found)}"
    yield f"{'':{NAMES}}  {'bits per dim':<17} {'bytes each':>10}"
    yield f"What it costs, by {anatomy.particles} samples of q for each picture"
    yield _line("−ELBO", anatomy.elbo)
    yield _line("likelihood", anatomy.likelihood)
    for name, layer in anatomy.layers.items():
        yield _line(name, layer.kl, _units(layer))
    part = f", of each the middle {found.part[1]} x {found.part[0]}" if _is_part(found) else ""
    if found.tightness is None or found.refinement is None:
        yield "It has no latents, and so −ELBO is −log2 p(x): there is nothing more to ask."
        return
    tight, refined = found.tightness, found.refinement
    yield ""
    yield f"How far it is from −log2 p(x): {found.measured} pictures{part}, by up to {max(tight.bounds)} samples"
    for count, rate in tight.bounds.items():
        yield _line("−ELBO" if count == 1 else f"importance-weighted, {count}", rate)
    yield _line("gap, at the least", tight.gap, "KL(q(z | x) || p(z | x)): a q that is not the posterior")
    yield ""
    yield f"The same, q refined for each picture by {refined.steps} steps: a measure, which no decoder could repeat"
    yield _line("−ELBO, refined q", refined.elbo)
    yield _line("importance-weighted, by both q", refined.bound)
    yield _line("amortisation gap, at the least", refined.amortisation, "what an encoder that finds this q would save")
    yield _line("approximation gap, the rest", refined.approximation, "what only a richer q would save")
    yield ""
    if found.surgery is None:
        yield "What of the KL is the prior's fault needs two pictures of one size at the least."
        return
    split = found.surgery
    yield f"What of the KL is the prior's fault: {split.pictures} pictures{part}, q(z) the mean of their posteriors"
    yield _line("KL", split.kl)
    limit = f"{_bits(split.information):.2f} bits, of log2 {split.pictures} = {_bits(split.most):.2f} at most"
    yield _line("I(x; z), at the least", split.information, limit)
    yield _line("KL(q(z) || p(z)), at the most", split.marginal, "what a better prior would save, and the bias")
    yield _bias(split)


def record(found: Diagnosis) -> dict[str, Any]:
    """The same numbers: rates as {"bits_per_dim", "error", "bytes"}."""
    anatomy, tight, refined, split = found.anatomy, found.tightness, found.refinement, found.surgery
    layers = {
        name: {
            "kl": _rate(layer.kl),
            "latents": len(layer.each),
            "dead": layer.dead,
            "active": layer.active,
            "bits_of_latents": layer.each.tolist(),
            "activity": None if layer.activity is None else layer.activity.tolist(),
        }
        for name, layer in anatomy.layers.items()
    }
    return {
        "model": found.model,
        "family": found.family,
        "images": len(anatomy.bits),
        "available": found.available,
        "sizes": [list(group.shape) for group in found.pictures],
        "part": list(found.part),
        "cost": {
            "samples": anatomy.particles,
            "elbo": _rate(anatomy.elbo),
            "likelihood": _rate(anatomy.likelihood),
            "layers": layers,
        },
        "bounds": tight
        and {
            "images": found.measured,
            "particles": max(tight.bounds),
            "elbo": _rate(tight.bounds[1]),
            "iwae": {str(count): _rate(rate) for count, rate in tight.bounds.items() if count > 1},
            "gap": _rate(tight.gap),
        },
        "refined": refined
        and {
            "images": found.measured,
            "steps": refined.steps,
            "samples": refined.samples,
            "elbo": _rate(refined.elbo),
            "bound": _rate(refined.bound),
            "amortisation": _rate(refined.amortisation),
            "approximation": _rate(refined.approximation),
        },
        "surgery": split
        and {
            "images": split.pictures,
            "kl": _rate(split.kl),
            "information": _rate(split.information),
            "marginal": _rate(split.marginal),
            "most": split.most.value,
            "saturated": split.saturated,
        },
    }


def _line(name: str, rate: Rate, note: str = "") -> str:
    error = f"± {rate.error:.4f}" if rate.error is not None else ""
    return f"  {name:<{NAMES}} {rate.value:8.4f} {error:<8} {rate.bytes:10.2f}  {note}".rstrip()


def _rate(rate: Rate) -> dict[str, float | None]:
    return {"bits_per_dim": rate.value, "error": rate.error, "bytes": rate.bytes}


def _bits(rate: Rate) -> float:
    """Of one picture."""
    return 8 * rate.bytes


def _units(layer: Layer) -> str:
    active = "" if layer.active is None else f", {layer.active} active"
    return f"{len(layer.each)} latents: {layer.dead} dead{active}"


def _size(found: Diagnosis) -> str:
    sizes = [f"{len(group)} of {group.shape[2]} x {group.shape[1]}" for group in found.pictures]
    if len(sizes) > 3:
        return f"of {len(sizes)} sizes"
    if len(sizes) > 1:
        return ", ".join(sizes)
    height, width, channels = found.pictures[0].shape[1:]
    return f"{width} x {height}, {height * width * channels} dims each"


def _is_part(found: Diagnosis) -> bool:
    return any(tuple(group.shape[1:3]) != found.part[:2] for group in found.pictures)


def _bias(split: Surgery) -> str:
    if not split.saturated:
        return "  The first is biased low and the second high, by what so few pictures cannot tell of q(z)."
    return f"  So {split.pictures} pictures cannot tell: the information may be more than they have, and the rest less."
