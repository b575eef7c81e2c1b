"""First thing that runs in a probe's process: enter the node's network, die with the parent, go on.

    python -m chaos.drivers.born PARENT NETNS MODULE

It enters by itself, so that nobody has to fork from a thread that has moved to another namespace.
Only the network changes: files, processes and Python itself are the machine's.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

from chaos.netns import setns

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the module named by the arguments."""
    parent, path, module = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be told
        return
    if path:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        setns(fd)
        os.close(fd)
    del sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
