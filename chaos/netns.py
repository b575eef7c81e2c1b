"""Network namespaces: make, open, enter. `os.setns` is missing in Python 3.11, so libc is called.

`setns` moves a *thread*. `/proc/sys/net` follows the thread; `/proc/net` is the main thread's (use
`/proc/thread-self/net`); a subprocess is born in its parent thread's namespace.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from chaos.errors import FabricError

CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID = 0x00020000, 0x40000000, 0x20000000
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


def setns(fd: int, kind: int = CLONE_NEWNET) -> None:
    """Move the calling thread into the namespace behind `fd`."""
    if _libc.setns(fd, kind) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def unshare(kinds: int) -> None:
    """Give the calling thread namespaces of its own."""
    if _libc.unshare(kinds) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """`mount(2)`."""
    args = (source.encode(), target.encode(), kind.encode(), flags, data.encode() or None)
    if _libc.mount(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount {source} on {target}: {os.strerror(code)}")


def umount(target: str, flags: int = 2) -> None:
    """`umount2(2)`; lazy (MNT_DETACH) by default."""
    if _libc.umount2(target.encode(), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"umount {target}: {os.strerror(code)}")


def inside(path: str, work: Callable[[], T]) -> T:
    """Run `work` in a short-lived thread inside the namespace that `path` opens; its result.

    An empty path is the namespace that we are in.

    Raises:
        FabricError: the namespace is gone.
        Exception: whatever `work` raised.
    """
    if not path:
        return work()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FabricError(f"network namespace {path} cannot be opened: {error.strerror}") from None
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            setns(fd)
            result.append(work())
        except BaseException as error:  # handed to the caller's thread below
            failure.append(error)

    thread = threading.Thread(target=body, name=f"netns:{os.path.basename(path)}")
    thread.start()
    thread.join()
    os.close(fd)
    if failure:
        raise failure[0]
    return result[0]


def inode(path: str) -> int:
    """Inode number that identifies the namespace; 0 when the path is gone."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0
