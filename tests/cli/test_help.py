"""What `--help` shows: every command has examples, which can be typed as they are; and what a shell completes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bbans.cli.main import cli


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every subcommand, and the groups below the first, with the words that it is called by."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def examples(command: click.Command) -> list[list[str]]:
    """The words behind `bbans` of each example; what stands behind two spaces explains it."""
    lines = [line.strip() for line in (command.help or "").splitlines()]
    return [shlex.split(re.split(r" {2,}| [<>|] ", line)[0])[1:] for line in lines if line.startswith("bbans ")]


COMMANDS = {" ".join(path): command for path, command in commands()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this command, with options that it has and values that these take."""
    monkeypatch.chdir(tmp_path)
    for folder in ("album", "models/photo"):
        Path(folder).mkdir(parents=True)
    for file in ("icons.npz", "recipe.toml"):
        Path(file).touch()
    shown = examples(COMMANDS[name])
    assert shown
    for words in shown:
        assert f"{' '.join(words)} ".startswith(f"{name} ")
        parse(words)


def parse(words: list[str]) -> None:
    """As the command does, but run nothing. Raises `click.UsageError`."""
    command: click.Command = cli
    for i, word in enumerate(words):
        if not isinstance(command, click.Group):
            command.make_context(word, words[i:])
            return
        command = command.commands[word]
    command.make_context(words[-1], [])


@pytest.mark.parametrize(
    "line", ["archive list --unheard-of album.bbansa", "compress --effort 10 photo.png", "archive list"]
)
def test_wrong_examples_would_not_parse(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(line.split())


def completing(**variables: str) -> str:
    """What the command says when a shell asks it."""
    code = "import sys; from bbans.cli.main import main; sys.exit(main())"
    environment = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_comes_out(shell: str) -> None:
    if shell == "bash" and not _is_new_bash():
        pytest.skip("click completes in bash 4.4 and later")
    assert f"_BBANS_COMPLETE={shell}_complete" in completing(_BBANS_COMPLETE=f"{shell}_source")


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("bbans comp", "plain,compress"),
        ("bbans archive ex", "plain,extract"),
        ("bbans compress --eff", "plain,--effort"),
    ],
)
def test_completion_completes(typed: str, completed: str) -> None:
    last = str(len(typed.split()) - 1)
    said = completing(_BBANS_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=last)
    assert said.splitlines() == [completed]


def _is_new_bash() -> bool:
    try:
        said = subprocess.run(["bash", "-c", "echo $BASH_VERSION"], capture_output=True, text=True).stdout
    except OSError:
        return False
    return tuple(map(int, re.findall(r"\d+", said)[:2])) >= (4, 4)
