"""The command `railbreak`: one room per group of verbs, one exit status per kind of ending.

Verdicts: 0 pass, 1 fail, 2 inconclusive. Refusals: 3 the spec is wrong, 4 a capability is missing,
5 the fabric cannot be built or reached, 6 blocked before the fault, 7 a change did not come into
force, 8 something is still in force. 130 interrupted (everything was taken back).
"""

from __future__ import annotations

import os
import sys

import click
from rich.console import Console

from chaos.errors import LeftoverError, RailbreakError, exit_status


def main() -> None:
    """Entry point: run the command and turn every ending into an exit status."""
    from chaos.cli.app import app

    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        app(standalone_mode=False)
    except RailbreakError as error:
        label = "STILL IN FORCE" if isinstance(error, LeftoverError) else "railbreak"
        errors.print(f"[bold red]{label}:[/] ", end="")
        errors.print(str(error), markup=False)
        sys.exit(exit_status(error))
    except click.exceptions.Exit as ending:
        sys.exit(ending.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(exit_status_of_usage())
    except (KeyboardInterrupt, click.Abort):
        errors.print("interrupted; everything was taken back")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def exit_status_of_usage() -> int:
    """A wrong command line is a wrong spec."""
    return 3
