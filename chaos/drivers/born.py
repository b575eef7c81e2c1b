"""First thing that runs in a probe's process: enter the node, die with the parent, go on.

    python -m chaos.drivers.born PARENT HOME MODULE

It enters by itself, so that nobody has to fork from a thread that has moved to another namespace.
Files, processes and Python itself stay the machine's. Where HOME (JSON, see `chaos.drivers.home`)
has process ids of its own, the module runs in a child, because only a child can have them.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import signal
import sys

from chaos.drivers.home import Home, aim_children, move_in
from chaos.drivers.state import start_ticks

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the module named by the arguments."""
    parent, home, module = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
    _die_with_parent()
    if os.getppid() != parent:  # it died before it could be told
        return
    if home.get("pid"):
        _beget(home)
    move_in(home)
    del sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _beget(home: Home) -> None:
    """Return in a child that has the home's process ids; the parent ends as the child does."""
    me, since = os.getpid(), start_ticks(os.getpid())
    aim_children(home["pid"])
    child = os.fork()
    if child == 0:
        _die_with_parent()
        if start_ticks(me) != since:
            os._exit(1)
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
