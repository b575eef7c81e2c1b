"""Commands side by side: work shared out, what each says told apart, all of them ended together."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence


def shared_out(seconds: Mapping[str, float], many: int) -> list[list[str]]:
    """At most `many` lists, none empty: the longest first, each to the list that has the least.

    Within a list the names stand in the order in which they came.
    """
    lists: list[list[str]] = [[] for _ in range(many)]
    for name in sorted(seconds, key=lambda name: (-seconds[name], name)):
        min(lists, key=lambda names: sum(seconds[one] for one in names)).append(name)
    order = list(seconds)
    return [sorted(names, key=order.index) for names in lists if names]


def side_by_side(
    commands: Mapping[str, Sequence[str]],
    tell: Callable[[str, str], None],
    signals: Sequence[int],
) -> dict[str, int]:
    """Runs commands by name until all have ended; their exit statuses.

    `tell(name, line)` is called with each line that one of them writes, without its end. Once a
    signal is in `signals`, each gets SIGTERM; also when this process is killed.
    """
    children = {name: _started(argv) for name, argv in commands.items()}
    halves = dict.fromkeys(children, b"")
    asked = False
    with selectors.DefaultSelector() as waiting, contextlib.ExitStack() as pipes:
        for name, child in children.items():
            pipe = pipes.enter_context(child.stdout)  # type: ignore[arg-type]
            waiting.register(pipe, selectors.EVENT_READ, name)
        while waiting.get_map():
            ready = waiting.select(0.2)
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                *lines, halves[key.data] = (halves[key.data] + data).split(b"\n")
                if not data:
                    waiting.unregister(key.fileobj)
                    lines = [halves[key.data]] if halves[key.data] else []
                for line in lines:
                    tell(key.data, line.decode(errors="replace"))
            if signals and not asked:
                asked = True
                for child in children.values():
                    child.send_signal(signal.SIGTERM)
            for key in [] if ready else list(waiting.get_map().values()):
                if children[key.data].poll() is not None:  # a child of its own holds the pipe
                    waiting.unregister(key.fileobj)
    return {name: child.wait() for name, child in children.items()}


def _started(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C of a terminal reaches it once, from here
        preexec_fn=_die_with_parent,
    )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def worst(statuses: Sequence[int]) -> int:
    """The exit status that is furthest from success; one that a signal ended counts as 128 + it."""
    return max((128 - one if one < 0 else one for one in statuses), default=0)
