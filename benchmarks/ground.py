"""What benchmarks stand on: two joined namespaces, CPU hogs, children that end with us, load."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos import load
from chaos.change import LinkState, Place, Where
from chaos.errors import CapabilityError, FabricError
from chaos.netns import CLONE_NEWNET, inode, inside, unshare

_PREFIX = "rbbench"
_PR_SET_PDEATHSIG = 1
_SETTLE_S = 10.0
_libc = ctypes.CDLL(None)
_numbers = itertools.count()
ROOT = Path(__file__).resolve().parent.parent


def end_with_parent() -> None:
    """For a child, between fork and exec: the kernel kills it when the thread that made it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@contextlib.contextmanager
def child(argv: Sequence[str], **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone afterwards, whatever happens; call it from the main thread."""
    process = subprocess.Popen(argv, preexec_fn=end_with_parent, cwd=ROOT, **more)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """That many processes that compute without end."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(child((sys.executable, "-c", "while True: pass")))
        yield


# ---- two namespaces, one cable -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pair:
    """Namespaces `a` and `b`, under names that `ip netns` knows, joined by one veth.

    Both ends are called eth1 and have different indexes: where the indexes are equal, the kernel
    reports carrier late.
    """

    a: str
    b: str

    INDEX = {"a": 7001, "b": 7002}  # noqa: RUF012 (a constant, not a field)

    def path(self, end: str) -> str:
        """What opens the namespace."""
        return f"/run/netns/{getattr(self, end)}"

    @property
    def paths(self) -> dict[str, str]:
        """Both, by end."""
        return {end: self.path(end) for end in ("a", "b")}

    def where(self, end: str = "a") -> Where:
        """The interface at one end."""
        return Where(self.path(end), inode(self.path(end)), "eth1", self.INDEX[end])

    @staticmethod
    def link_state() -> LinkState:
        """The change that sets a's interface down, with nothing of ours to put back after it."""
        return LinkState(Place("a", "eth1", "wire"))


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    """Two joined namespaces, both ends up with carrier; gone afterwards."""
    own = f"{_PREFIX}{os.getpid()}x{next(_numbers)}"
    made = Pair(own + "a", own + "b")
    try:
        for end, name in (("a", made.a), ("b", made.b)):
            must("ip", "netns", "add", name)
            inside(made.path(end), _no_address_checks)
        first = ("link", "add", "eth1", "index", str(Pair.INDEX["a"]), "netns", made.a)
        second = ("peer", "name", "eth1", "index", str(Pair.INDEX["b"]), "netns", made.b)
        must("ip", *first, "type", "veth", *second)
        for name in (made.a, made.b):
            must("ip", "-n", name, "link", "set", "eth1", "up")
        await_true(lambda: all(_carrier(made.path(end)) for end in "ab"), "the cable's carrier")
        yield made
    finally:
        for name in (made.a, made.b):
            subprocess.run(("ip", "netns", "del", name), capture_output=True, check=False)


def _no_address_checks() -> None:
    for which in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{which}/accept_dad").write_text("0")


def _carrier(path: str) -> bool:
    return "LOWER_UP" in inside(path, lambda: must("ip", "-o", "link", "show", "dev", "eth1"))


def remove_dead() -> None:
    """Remove namespaces of benchmarks that were killed before they could."""
    folder = Path("/run/netns")
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        found = re.fullmatch(rf"{_PREFIX}(\d+)x\d+[ab]", name)
        if found and not Path("/proc", found[1]).exists():
            subprocess.run(("ip", "netns", "del", name), capture_output=True, check=False)


def must(*argv: str) -> str:
    """Run a command; what it printed.

    Raises:
        FabricError: it failed; quotes it.
    """
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FabricError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def await_true(test: Any, what: str, deadline_s: float = _SETTLE_S) -> None:
    """Return when `test()` holds.

    Raises:
        FabricError: not in time.
    """
    until = time.monotonic() + deadline_s
    while not test():
        if time.monotonic() > until:
            raise FabricError(f"waited {deadline_s:g} s in vain for {what}")
        time.sleep(0.002)


def await_freed() -> None:
    """Return when the kernel has freed every namespace that died before this call.

    It frees them by one worker, in the order of their death, long after the last process is gone.
    So one more is made to die: when the far end of a cable into it vanishes, the rest are gone.
    """
    failure: list[BaseException] = []

    def body() -> None:
        try:
            unshare(CLONE_NEWNET)
            home = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
            far = ("ip", "link", "add", "s1", "type", "veth", "peer", "name", "s0", "netns", home)
            must("unshare", "--net", *far)
            await_true(lambda: "s0" not in _devices(), "the kernel to free namespaces")
        except BaseException as error:  # handed to the caller's thread below
            failure.append(error)

    thread = threading.Thread(target=body, name="freed")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def _devices() -> str:
    return Path("/proc/thread-self/net/dev").read_text()


# ---- the machine ---------------------------------------------------------------------------------


def need(*commands: str) -> None:
    """Refuse to go on without root or a command that the peers are made of.

    Raises:
        CapabilityError: says what is missing and how to have it.
    """
    if os.geteuid() != 0:
        raise CapabilityError("benchmarks make network namespaces, which needs root; use sudo")
    missing = [name for name in commands if shutil.which(name) is None]
    if missing:
        raise CapabilityError(
            f"not on this machine: {', '.join(missing)}; install iproute2, nftables and util-linux"
        )


def machine(look_s: float = 0.5) -> dict[str, Any]:
    """What this machine is and how busy others keep it now."""
    before = load.read()
    time.sleep(look_s)  # a share of CPU time needs a stretch of time
    now = load.between(before, load.read())
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": [round(one, 2) for one in os.getloadavg()],
        "foreign_percent": round(now.foreign_percent, 1),
        "stolen_percent": round(now.stolen_percent, 1),
    }


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else platform.machine()


def sentence(facts: dict[str, Any]) -> str:
    """The machine in one line."""
    busy = facts["foreign_percent"]
    warning = "; NOT QUIET, ratios will be noisy" if busy + facts["stolen_percent"] > 10 else ""
    return (
        f"{facts['cores']} cores ({facts['cpu']}), Linux {facts['kernel']}, "
        f"Python {facts['python']}; others use {busy:g} % of it, load average "
        f"{' '.join(str(one) for one in facts['load_average'])}{warning}"
    )
