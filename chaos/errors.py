"""Every error this project raises, and what the operator should do about it.

RailbreakError
├── SpecError        what was written is wrong; no machine was touched
├── FabricError      a fabric cannot be built or reached; nothing was broken on purpose
│   └── CapabilityError  it cannot do what was asked; skip with this sentence
├── BlockedError     a precondition failed before the fault (calm was not calm, …)
├── ApplyError       a change did not come into force; everything was taken back
└── LeftoverError    an undo failed; a machine is still faulted, the message prints the cure

The command line maps each branch to its own exit status (`EXIT_STATUS`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RailbreakError(Exception):
    """Root of the tree; never raised itself."""


class SpecError(RailbreakError):
    """What was written is wrong.

    Args:
        message: What was found and what would be right.
        file: File it was found in, if any.
        line: Line in that file, counted from 1.
        field: Dotted path of the field, such as `topology.nodes.leaf1.kind`.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        self.file, self.line, self.field, self.reason = file, line, field, message
        where = ":".join(str(part) for part in (file, line) if part is not None)
        super().__init__(": ".join(part for part in (where, field, message) if part))


class FabricError(RailbreakError):
    """A fabric cannot be built or reached."""


class CapabilityError(FabricError):
    """This fabric or machine cannot do what was asked; the sentence says what is missing."""


class BlockedError(RailbreakError):
    """A precondition failed before the fault; nothing was broken."""


class ApplyError(RailbreakError):
    """A change did not come into force; everything was taken back."""


class LeftoverError(RailbreakError):
    """An undo failed; the message names the place and the command that cures it."""


#: Exit status of the command line per branch; verdicts use 0 (pass), 1 (fail), 2 (inconclusive).
EXIT_STATUS: dict[type[RailbreakError], int] = {
    SpecError: 3,
    CapabilityError: 4,
    FabricError: 5,
    BlockedError: 6,
    ApplyError: 7,
    LeftoverError: 8,
}


def exit_status(error: RailbreakError) -> int:
    """The most specific exit status for `error`.

    Examples:
        >>> exit_status(CapabilityError("no netem in this kernel"))
        4
    """
    return next(EXIT_STATUS[kind] for kind in type(error).__mro__ if kind in EXIT_STATUS)


def near(word: str, known: Iterable[str]) -> str:
    """The tail of a refusal: near names if there are any, else what is known.

    Examples:
        >>> near("leaf11", ["leaf1", "spine1"])
        'did you mean leaf1?'
        >>> near("x", ["leaf1", "spine1"])
        'it has leaf1, spine1'
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    shown = ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")
    return f"it has {shown or 'none'}"
