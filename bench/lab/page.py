"""What an experiment finds, and how that becomes a page of `docs/lab`: tables, figures, claims that hold or don't.

Knows Markdown; knows nothing of models.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import common


@dataclass(frozen=True)
class Table:
    """Rows of cells under a head; the caption says what they are, and in which unit."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Claim:
    """What must be seen: ours beside what the text, or the theory, says, and whether it holds."""

    what: str
    expected: str
    found: str
    holds: bool


@dataclass
class Page:
    """An experiment's page. question: what is asked, and by which text; setting: how it is answered; conclusion: two
    sentences, which the claims must bear out; figures: captions by the names of their files."""

    title: str
    question: str
    setting: str
    conclusion: str
    tables: list[Table] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether all claims do."""
        return all(claim.holds for claim in self.claims)

    def lines(self, command: str, *, quick: bool) -> list[str]:
        """Markdown."""
        lines = [f"# {self.title}", ""]
        if quick:
            lines += ["**A quick run: few steps, loose tolerances; no figure of it is to be quoted.**", ""]
        lines += [prose(self.question), "", prose(self.setting), "", f"    {command}", ""]
        for table in self.tables:
            lines += [prose(table.caption), "", *common.table(table.head, table.rows), ""]
        for name, caption in self.figures.items():
            lines += [f"![]({name})", "", prose(caption), ""]
        rows = [[c.what, c.expected, c.found, "yes" if c.holds else "**no**"] for c in self.claims]
        lines += ["What must be seen:", "", *common.table(["", "expected", "found", "holds"], rows), ""]
        return [*lines, prose(f"**Conclusion.** {self.conclusion}")]

    def write(self, folder: Path, name: str, command: str, *, quick: bool) -> None:
        """NAME.md in the folder, beside the figures."""
        (folder / f"{name}.md").write_text("\n".join(self.lines(command, quick=quick)) + "\n", encoding="utf-8")


def prose(text: str) -> str:
    """A paragraph as a source file has it, indented and in lines of its own, in lines of the page's width."""
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def near(what: str, expected: float, found: float, within: float, unit: str = "") -> Claim:
    """The claim that a number is as expected."""
    said = f"{expected:.4g} ± {within:.2g} {unit}".strip()
    return Claim(what, said, f"{found:.4g} {unit}".strip(), abs(found - expected) <= within)


def below(what: str, bound: float, found: float, unit: str = "") -> Claim:
    """The claim that a number is at most a bound."""
    return Claim(what, f"≤ {bound:.4g} {unit}".strip(), f"{found:.4g} {unit}".strip(), found <= bound)
