"""The command `railbreak`: one room per group of verbs, one exit status per kind of ending.

Verdicts: 0 pass, 1 fail, 2 inconclusive. Refusals: 3 the spec is wrong, 4 a capability is missing,
5 the fabric cannot be built or reached, 6 blocked before the fault, 7 a change did not come into
force, 8 something is still in force or was left behind. 130 interrupted or answered with no, and
nothing is left in force.
"""

from __future__ import annotations

import os
import sys

import typer
from rich.console import Console

from chaos import recover
from chaos.errors import LeftoverError, RailbreakError, exit_status

WRONG_COMMAND_LINE = 3  # a wrong command line is a wrong spec
INTERRUPTED = 130


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
    except KeyboardInterrupt:
        sys.exit(_interrupted(errors))
    except typer.Abort as abort:
        if isinstance(abort.__cause__, KeyboardInterrupt):
            sys.exit(_interrupted(errors))
        errors.print("nothing was changed")
        sys.exit(INTERRUPTED)
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
        sys.exit(_interrupted(errors) if ended == INTERRUPTED else ended)


def _interrupted(errors: Console) -> int:
    """Say what an interrupted command left in force, looking at the machine; the exit status."""
    try:
        standing = recover.in_force()
    except RailbreakError as error:
        errors.print("[bold red]interrupted:[/] what is in force cannot be told: ", end="")
        errors.print(str(error), markup=False)
        return exit_status(LeftoverError(""))
    for one in standing:
        label = "still to heal" if one.held else "STILL IN FORCE"
        errors.print(f"[bold red]{label}:[/] ", end="")
        errors.print(recover.sentence(one), markup=False)
        if not one.held:
            errors.print(f"  cure: {one.entry.cure}", markup=False)
    if all(one.held for one in standing):
        tail = "" if standing else "; nothing is left in force"
        errors.print(f"interrupted{tail}")
        return INTERRUPTED
    return exit_status(LeftoverError(""))
