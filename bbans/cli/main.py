"""The command `bbans`: the group of its subcommands, and how any of them ends.

Exit codes: 0, 1 after an error, 2 after wrong usage, 130 after Ctrl-C. An error is one line on stderr, never a
traceback, but with `--debug`. Modules here import only click at their top, so that `--help` is quick.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

import click

from bbans import __version__
from bbans.cli.archive import archive
from bbans.cli.compress import compress
from bbans.cli.decompress import decompress, test
from bbans.cli.diagnose import diagnose
from bbans.cli.eval import evaluate
from bbans.cli.heatmap import heatmap
from bbans.cli.info import info, models
from bbans.cli.sample import sample
from bbans.cli.shared import Stop, complain, explain
from bbans.cli.train import train
from bbans.errors import BbansError
from bbans.memory import keep_large_buffers

SHORT_SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}  # of GNU's OpenMP, some microseconds; of LLVM's, in ms


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
def cli(debug: bool) -> None:
    """Compress images losslessly, with bits-back coding from a VAE."""
    keep_large_buffers()
    _let_idle_threads_sleep()


for _command in (compress, decompress, info, test, heatmap, sample, archive, models, evaluate, diagnose, train):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. arguments: without the program's name; None: those of the process."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *where: complain(f"warning: {message}")
            code = cli.main(arguments, prog_name="bbans", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "bbans"
        complain(f"{error.format_message()} ('{command} --help' tells more)")
        return 2
    except click.ClickException as error:
        complain(error.format_message())
        return 1
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return 130
    except (BbansError, Stop) as error:
        complain(explain(error))
        return 1
    except Exception as error:
        if _wants_debug(arguments):
            raise
        complain(explain(error))
        return 1
    return code if isinstance(code, int) else 0


def _let_idle_threads_sleep() -> None:
    """Have OpenMP's threads sleep soon while they wait, unless the user has decided; workers inherit it.

    By default they spin, on cores that the thread they wait for may need: beside a busy process, everything then takes
    much longer. The variable is read when torch is loaded, and not again.
    """
    if not any(name in os.environ for name in ("OMP_WAIT_POLICY", *SHORT_SPIN)):
        os.environ |= SHORT_SPIN


def _wants_debug(arguments: Sequence[str] | None) -> bool:
    return "--debug" in (sys.argv[1:] if arguments is None else arguments)
