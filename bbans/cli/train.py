"""`bbans train`: a thin command over `bbans.train.run`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("family", metavar="FAMILY")
@click.argument("data", metavar="DATA...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of the run.",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A recipe.toml.  [default: the family's own]",
)
@click.option(
    "--validation",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Pictures to validate on, as DATA. May be given several times.",
)
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="What the lines of .txt lists are relative to.  [default: the list's folder]",
)
@click.option(
    "--init",
    "initial",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A model's folder to begin from, instead of from random weights. A thumbnail may begin from a photo.",
)
@click.option(
    "--at",
    "initial_step",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The step of the recipe that the weights of --init were made by: what comes before it is left out.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to train."
)
def train(
    family: str,
    data: tuple[Path, ...],
    output: Path,
    config: Path | None,
    validation: tuple[Path, ...],
    root: Path | None,
    device: str,
    initial: Path | None,
    initial_step: int,
) -> None:
    """Train a model of a FAMILY on your own pictures.

    The families are photo, for pictures of any size (DATA: image files, folders of them, or .txt lists of paths), and
    thumbnail, for small pictures that are all of one size, which the recipe names (DATA: files and folders, and arrays
    uint8 [n, h, w] or [n, h, w, c] as .npy or .npz). For these, grey or bilevel, there is also dense, the VAE of the
    textbooks: fully connected, with a choice of priors and posteriors.

    The result is a folder that `bbans compress -m` takes. A run that was cut off resumes where its last checkpoint is,
    by the same command. Now and then it prints bits per dim of pictures that it doesn't train on: the likelihood, the
    KL of each layer of latents, and how many latents are dead, that is, tell next to nothing. To make them tell
    something, the recipe's kl_warmup gives the KL less weight in the first so many steps; at the end the objective
    is the true negative ELBO.

    \b
    bbans train photo album -o run
    bbans train photo album --config recipe.toml --init models/photo -o run
    bbans train thumbnail icons.npz --config recipe.toml -o run
    bbans train dense icons.npz --config recipe.toml -o run
    """
    from bbans.train.run import main_train

    main_train(
        family,
        list(data),
        output,
        config=config,
        validation=list(validation),
        root=root,
        device=device,
        initial=initial,
        initial_step=initial_step,
    )
