"""The laboratory's experiment on bits back holds in a quick run, without any data set."""

from pathlib import Path

from bench.lab import bits_back
from bench.lab.models import Lab


def test_every_term_of_elbo_is_a_change_of_the_message(tmp_path: Path) -> None:
    page = bits_back.run(Lab(tmp_path, tmp_path, quick=True))
    assert page.holds, [claim for claim in page.claims if not claim.holds]
    assert (tmp_path / "bits_back.png").exists()
