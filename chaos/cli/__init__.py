"""The command `railbreak`: one room per group of verbs, one exit status per kind of ending.

Verdicts: 0 pass, 1 fail, 2 inconclusive. Refusals: 3 the spec is wrong, 4 a capability is missing,
5 the fabric cannot be built or reached, 6 blocked before the fault, 7 a change did not come into
force, 8 something is still in force. 130 interrupted (everything was taken back).
"""

from __future__ import annotations

import os
import sys

import typer
from rich.console import Console

from chaos.errors import LeftoverError, RailbreakError, exit_status

WRONG_COMMAND_LINE = 3  # a wrong command line is a wrong spec


def main() -> None:
    """Entry point: run the command and turn every ending into an exit status."""
    from chaos.cli.app import app

    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        ended = app(standalone_mode=False)
    except RailbreakError as error:
        label = "STILL IN FORCE" if isinstance(error, LeftoverError) else "railbreak"
        errors.print(f"[bold red]{label}:[/] ", end="")
        errors.print(str(error), markup=False)
        sys.exit(exit_status(error))
    except typer.TyperException as error:
        path = getattr(getattr(error, "ctx", None), "command_path", "railbreak")
        errors.print("[bold red]railbreak:[/] ", end="")
        errors.print(f"{error.format_message()} See {path} --help.", markup=False)
        sys.exit(WRONG_COMMAND_LINE)
    except (KeyboardInterrupt, typer.Abort):
        errors.print("interrupted; everything was taken back")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:  # a path of the user's that cannot be read or written
        if error.filename is None:
            raise
        errors.print("[bold red]railbreak:[/] ", end="")
        errors.print(f"{error.filename}: {error.strerror}", markup=False)
        sys.exit(WRONG_COMMAND_LINE)
    if isinstance(ended, int) and ended:
        if ended == 130:
            errors.print("interrupted; everything was taken back")
        sys.exit(ended)
