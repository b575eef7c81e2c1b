"""Commands of Containerlab and of the container runtime: started, awaited, ended with us.

Their words on standard error are folded into one sentence; nothing is decided by an exit status
alone, because Containerlab's is 0 in spite of many troubles.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import subprocess
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chaos.errors import CapabilityError

_PR_SET_PDEATHSIG = 1
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STAMP = re.compile(r"^\d\d:\d\d:\d\d ")
_libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Said:
    """What a command answered.

    Attributes:
        code: Exit status; -signal where a signal ended it.
        out: Standard output.
        err: Standard error.
    """

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """Its error in one line."""
        return error_of(self.err) or error_of(self.out) or f"exit status {self.code}"


def error_of(text: str) -> str:
    """The error in what a command printed, as one line; empty where it printed nothing.

    Containerlab prints a block `ERROR` that it wraps in mid-sentence, after its log.

    Examples:
        >>> error_of("10:00:00 INFO Parsing\\n   ERROR  \\n  Lab 'x' not\\n  found.   ")
        "Lab 'x' not found."
        >>> error_of("10:00:00 INFO Parsing\\nCannot connect to the daemon\\n")
        'Cannot connect to the daemon'
    """
    plain = _COLOUR.sub("", text)
    _, block, rest = plain.partition("\n   ERROR")
    lines = (rest if block else plain).splitlines()
    kept = [line.strip() for line in lines if line.strip() and not _STAMP.match(line)]
    return " ".join(kept)[:600]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of these commands: no colours, no question for newer versions."""
    return {**os.environ, "CLAB_VERSION_CHECK": "disable", "TERM": "dumb", **(more or {})}


async def call(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    deadline_s: float = 120.0,
    patience_s: float = 0.0,
) -> Said:
    """Run a command to its end; it is killed at the deadline, on cancellation, and with us.

    Args:
        argv: The command.
        env: More environment.
        deadline_s: When it is killed.
        patience_s: How long it may go on after a cancellation, so that what it has asked of others
            is not done behind our back.

    Raises:
        CapabilityError: there is no such program.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(env),
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    )
    try:
        process = await asyncio.shield(starting)
    except OSError as error:
        raise _missing(argv[0], error) from None
    except asyncio.CancelledError:  # a start that is cancelled half-way can hang for ever
        await _end(await starting, patience_s)
        raise
    try:
        out, err = await asyncio.wait_for(process.communicate(), deadline_s)
    except TimeoutError:
        return Said(124, "", f"{' '.join(argv[:3])} was not over after {deadline_s:g} s")
    finally:
        await _end(process, patience_s)
    return Said(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))


async def _end(process: asyncio.subprocess.Process, patience_s: float) -> None:
    """Wait for a process, and kill it with its session when that takes too long."""
    if process.returncode is None and patience_s:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), patience_s)
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do something to its end; a cancellation meanwhile is passed on after it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def ask(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, deadline_s: float = 60.0
) -> Said:
    """The same, without a loop.

    Raises:
        CapabilityError: there is no such program.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment(env),
            timeout=deadline_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Said(124, "", f"{' '.join(argv[:3])} was not over after {deadline_s:g} s")
    except OSError as error:
        raise _missing(argv[0], error) from None
    out, err = (part.decode(errors="replace") for part in (done.stdout, done.stderr))
    return Said(done.returncode, out, err)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _missing(program: str, error: OSError) -> CapabilityError:
    why = "is not installed" if isinstance(error, FileNotFoundError) else str(error.strerror)
    cure = {
        "containerlab": "see https://containerlab.dev/install",
        "docker": "install docker, or set RAILBREAK_RUNTIME=podman",
        "podman": "install podman, or unset RAILBREAK_RUNTIME and CLAB_RUNTIME",
    }.get(program, f"install {program}")
    return CapabilityError(f"{program} {why} here; {cure}")
