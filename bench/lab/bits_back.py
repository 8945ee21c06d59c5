"""Bits back, step by step: every term of −ELBO is a change of the message's length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bbans import zoo
from bbans.ans import Message
from bbans.exact.layers import arithmetic
from bbans.image.dense import DenseCodec
from bbans.image.planes import Strand
from bbans.vae.bounds import measure
from bbans.vae.dense import DenseVAE
from bbans.vae.families import picture_planes
from bench.lab import bilevel, plots
from bench.lab.models import Lab, coded
from bench.lab.page import Claim, Page, Table, near
from bench.sets import Absent

BITS = 8  # log2 of the bins of a latent in a unit, as chains have them
SLACK = (
    0.5  # bits: of one picture, whose bins' frequencies are off by up to 3 % either way (tables are straight in parts)
)
EARLIER = 30  # pictures on the message, whose bits z is popped from
SEED = 1  # of the padding below an empty message
SENDER = ("pop z with q(z given x)", "push x with p(x given z)", "push z with p(z)")
TERMS = ("log₂ q(z given x)", "−log₂ p(x given z)", "−log₂ p(z)")
RECEIVER = ("pop z with p(z)", "pop x with p(x given z)", "push z with q(z given x)")
AXIS = ("begin", "pop z", "push x", "push z", "pop z", "pop x", "push z")


@dataclass(frozen=True)
class Step:
    """theory: what the probabilities say that it changes the length by; state: the whole message after it."""

    before: float
    after: float
    theory: float
    state: bytes

    @property
    def changed(self) -> float:
        """Bits."""
        return self.after - self.before


class Line:
    """A message between a sender and a receiver, and the pieces of the codec that bits back are made of."""

    def __init__(self, model: zoo.Model) -> None:
        self.codec = DenseCodec(cast(DenseVAE, model.network), model.tables, 1, None)
        self.strand = Strand(Message.empty(1, seed=SEED), 1, BITS, {})

    @property
    def message(self) -> Message:
        return self.strand.message

    def send(self, x: Tensor) -> list[Step]:
        """A picture [1, 1, h, w]: `bbans.bitsback.bits_back`, one line after the other."""
        z, pop = self._step(lambda: self.codec.posterior(x).pop([self.strand]), 1)
        _, push_x = self._step(lambda: self.codec.likelihood(z).push([self.strand], x), 1)
        _, push_z = self._step(lambda: self.codec.prior().push([self.strand], z), 1)
        return [pop, push_x, push_z]

    def receive(self) -> tuple[Tensor, list[Step]]:
        """The picture that was sent last."""
        z, pop_z = self._step(lambda: self.codec.prior().pop([self.strand]), -1)
        x, pop_x = self._step(lambda: self.codec.likelihood(z).pop([self.strand]), -1)
        _, push = self._step(lambda: self.codec.posterior(x).push([self.strand], z), -1)
        return x, [pop_z, pop_x, push]

    def _step(self, act: Callable[[], Any], sign: int) -> tuple[Any, Step]:
        """The ledger counts a receiver's bits as what they cost the sender."""
        ledger = self.strand.ledger
        assert ledger is not None
        before, told = self.message.bits(), sum(ledger.values())
        found = act()
        theory = sign * (sum(ledger.values()) - told)
        return found, Step(before, self.message.bits(), theory, self.message.to_bytes())


def run(lab: Lab) -> Page:
    """Train, send, receive, draw."""
    data = pictures(lab)
    model = lab.trained(data.task(data.dense()), bilevel.of_dense(lab))
    pixels = data.test[: EARLIER + lab.steps(100, 20)]
    planes = [picture_planes(model.network, torch.from_numpy(one[None])) for one in pixels]
    with arithmetic():
        line, alone = Line(model), Line(model)
        for x in planes[:EARLIER]:
            line.send(x)
        begin = line.message.to_bytes()
        sent = [line.send(x) for x in planes[EARLIER:]]
        received = [line.receive() for _ in sent][::-1]
        first_alone = alone.send(planes[EARLIER])
        initial = 32.0 * alone.message.words.padding
        _, back_alone = alone.receive()
    # the message before and after each of the sender's steps, and what the receiver finds on the way back
    there = [begin, *(step.state for steps in sent for step in steps)]
    back = [there[-1], *(step.state for _, steps in reversed(received) for step in steps)]
    same = all(torch.equal(x, y) for x, (y, _) in zip(planes[EARLIER:], received, strict=True))
    particles = lab.steps(100, 20)
    network = model.float_network
    assert network is not None
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        elbo = measure(network, torch.from_numpy(pixels[EARLIER:]), particles).elbo
    chain = coded(model, data.test[: lab.steps(2000, 100)])
    plots.lengths(
        lab.pages / "bits_back.png",
        AXIS,
        {
            f"on a message of {EARLIER} pictures": _lengths(sent[0] + received[0][1]),
            "on an empty message": _lengths(first_alone + back_alone),
        },
    )
    one, means = _sum(sent[0]), [_mean([steps[i] for steps in sent]) for i in range(3)]
    mean, drawn = (sum(each) for each in zip(*means, strict=True))
    costs = [_sum(steps)[0] for steps in sent]
    error = float(np.std(np.array(costs) - elbo, ddof=1) / np.sqrt(len(elbo)))
    alone_net = _sum(first_alone)[0] - initial
    return Page(
        title="Bits back, step by step",
        question="""
            A sender draws z from q(z given x), sends it by p(z) and then x by p(x given z); the receiver, who now knows
            x, finds again what z was drawn with. In expectation the code's length is C = E[−log p(z) − log p(x given z)
            + log q(z given x)], the negative ELBO (Yu, "A Tutorial on VAEs: From Bayes' Rule to Lossless Compression",
            section 4.1, eq. 33). Is each of these three terms what a real message grows or shrinks by?
        """,
        setting=f"""
            `dense`, 200 + 200 units and 20 normal latents, on {data.name}. Each step is one call of the codec on one
            message, whose length is `Message.bits`: log2 of its head, and 32 for each word. The frequencies of single
            bins are off by up to 3 % either way, for the coder's tables of the normal are piecewise linear; that
            averages out, but is some tenths of a bit in one picture. z is not drawn by a
            generator but popped, as if what is already on the message, {EARLIER} pictures, were random bits: these are
            the secondary message, which the receiver gets back. {len(sent)} pictures of the test set are sent, then
            received in the reverse order.
        """,
        conclusion="""
            Each step changes the message by the logarithm that eq. 33 has for it, and the three together by −ELBO of
            the latents drawn, to 0.1 % for one picture and to 0.01 % on average; the receiver passes the same messages
            backwards, bit for bit. What eq. 33 leaves out is the beginning: on an empty message the bits that z is
            popped from have to be put there first, and stay.
        """,
        tables=[
            Table(
                """The first picture sent, in bits. Theory: of the latents drawn, by real-valued probabilities.""",
                ["step", "before", "after", "change", "term", "theory"],
                [
                    *(
                        [what, *_cells(step), term, f"{step.theory:+.3f}"]
                        for what, step, term in zip(SENDER, sent[0], TERMS, strict=True)
                    ),
                    ["**sent**", *_ends(sent[0]), f"**{one[0]:+.3f}**", "−ELBO", f"**{one[1]:+.3f}**"],
                    *(
                        [what, *_cells(step), f"−({term})", f"{step.theory:+.3f}"]
                        for what, step, term in zip(RECEIVER, received[0][1], reversed(TERMS), strict=True)
                    ),
                    ["**received**", *_ends(received[0][1]), f"**{_sum(received[0][1])[0]:+.3f}**", "", ""],
                ],
            ),
            Table(
                f"""Means over the {len(sent)} pictures, in bits; in expectation of z is the float networks' −ELBO, by
                {particles} samples of each picture.""",
                ["term", "change", "theory", "in expectation"],
                [
                    *(
                        [term, f"{changed:+.3f}", f"{theory:+.3f}", ""]
                        for term, (changed, theory) in zip(TERMS, means, strict=True)
                    ),
                    ["−ELBO", f"{mean:+.3f}", f"{drawn:+.3f}", f"{elbo.mean():+.3f} ± {error:.3f}"],
                ],
            ),
            Table(
                """The first picture on an empty message, whose head holds 31 bits of nothing: padding pays for what is
                popped, and stays as the initial bits. Popped from a head of zeros, the first latent is an improbable
                one, whose frequency is rounded up: hence the difference of net and −ELBO. Below, a chain of pictures,
                as files have them, which pays the initial bits once.""",
                ["bits", "pictures", "−ELBO", "net", "initial", "total", "total per picture"],
                [
                    _totals("an empty message", 1, _sum(first_alone)[1], alone_net, initial, alone_net + initial),
                    _totals("a chain", chain.pictures, chain.elbo, chain.net, chain.initial, chain.total),
                ],
            ),
        ],
        claims=[
            *(
                near(f"first picture: {what}, bits", step.theory, step.changed, SLACK)
                for what, step in zip(SENDER, sent[0], strict=True)
            ),
            near("first picture: sum against −ELBO, bits", one[1], one[0], SLACK),
            near(f"mean of {len(sent)} pictures: sum against −ELBO, bits", drawn, mean, 0.001 * drawn),
            near(
                "mean against −ELBO in expectation, within three standard errors, bits",
                float(elbo.mean()),
                mean,
                3 * error,
            ),
            near("first picture, empty message: net against −ELBO, bits", _sum(first_alone)[1], alone_net, 5),
            Claim(
                f"the receiver passes the sender's {len(there)} messages backwards, bit for bit",
                "all",
                f"{sum(a == b for a, b in zip(there[::-1], back, strict=True))}",
                there[::-1] == back,
            ),
            Claim("pictures received", f"{len(sent)} as sent", "the same" if same else "others", same),
        ],
        figures={
            "bits_back.png": """The message's length while the first picture is sent, and received again. An
            empty message is padded while z is popped, and the padding stays."""
        },
    )


def pictures(lab: Lab) -> bilevel.Set:
    """MNIST, or where it isn't, as in a quick run, strokes."""
    try:
        return bilevel.of(lab)
    except Absent:
        return bilevel.strokes()


def _sum(steps: Sequence[Step]) -> tuple[float, float]:
    """Changed, and by theory."""
    return sum(step.changed for step in steps), sum(step.theory for step in steps)


def _mean(steps: Sequence[Step]) -> tuple[float, float]:
    changed, theory = _sum(steps)
    return changed / len(steps), theory / len(steps)


def _lengths(steps: Sequence[Step]) -> list[float]:
    return [steps[0].before, *(step.after for step in steps)]


def _ends(steps: Sequence[Step]) -> list[str]:
    return [f"{steps[0].before:.2f}", f"{steps[-1].after:.2f}"]


def _cells(step: Step) -> list[str]:
    return [f"{step.before:.2f}", f"{step.after:.2f}", f"{step.changed:+.3f}"]


def _totals(what: str, pictures: int, *bits: float) -> list[str]:
    return [what, str(pictures), *(f"{each:.1f}" for each in bits), f"{bits[-1] / pictures:.1f}"]
