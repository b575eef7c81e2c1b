"""What this machine can do, found out by doing it in a namespace that is thrown away."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator

from chaos.driver import Capability
from chaos.drivers.netns.frr import binaries
from chaos.errors import CapabilityError
from chaos.natives.able import Here
from chaos.netns import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, unshare
from chaos.packets.engines import ENGINES

ROOT_CURE = "run it as root: sudo railbreak …"
_VETH = ["link", "add", "name", "probe0", "type", "veth", "peer", "name", "probe1"]
_FWD = (
    "table netdev probe {\n chain c {\n type filter hook ingress device lo priority -500;\n"
    " counter\n fwd to lo\n }\n}\n"
)


def probe() -> tuple[Capability, ...]:
    """Everything the embedded fabric needs or can use, each with reason and cure."""
    root = os.geteuid() == 0
    found = [Capability("root", root, "" if root else "not root", "" if root else ROOT_CURE)]
    for name, kinds in (
        ("netns", CLONE_NEWNET),
        ("mount_namespace", CLONE_NEWNS),
        ("pid_namespace", CLONE_NEWPID),
    ):
        reason = _tried(lambda kinds=kinds: unshare(kinds))  # type: ignore[misc]
        found.append(Capability(name, not reason, reason, ROOT_CURE if reason else ""))
    found += [
        _tool("ip", "iproute2"),
        _made("veth", "ip", _VETH, "iproute2"),
        _made("nft", "nft", ["-f", "-"], "nftables", _FWD),
        *_engines(),
        _hash_seed(),
        _frr(),
        _sched_fifo(),
    ]
    return tuple(found)


def _engines() -> Iterator[Capability]:
    """What does the actions of packet rules (docs/packets.md): each tried."""
    for name, why in Here().items():
        reason, _, cure = why.partition("; ")
        yield Capability(f"engine {name}" if name in ENGINES else name, not why, reason, cure)


def _tried(deed: Callable[[], None]) -> str:
    """Why `deed` failed in a thread of its own; empty when it did not."""
    reason: list[str] = []

    def body() -> None:
        try:
            deed()
        except OSError as error:
            reason.append(error.strerror or str(error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return reason[0] if reason else ""


def _tool(name: str, package: str) -> Capability:
    here = shutil.which(name) is not None
    cure = "" if here else f"install {package}"
    return Capability(name, here, "" if here else f"no program {name}", cure)


def _made(name: str, tool: str, argv: list[str], package: str, stdin: str = "") -> Capability:
    """Run a tool in a network namespace of its own."""
    if shutil.which(tool) is None:
        return Capability(name, False, f"no program {tool}", f"install {package or 'iproute2'}")

    def deed() -> None:
        unshare(CLONE_NEWNET)
        done = subprocess.run(
            [tool, *argv], input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["no reason"]
            raise OSError(0, f"{tool} {argv[0]}: {said[0]}")

    reason = _tried(deed)
    if not reason:
        return Capability(name, True)
    if os.geteuid() != 0:
        return Capability(name, False, reason, ROOT_CURE)
    cures = {
        "nft": "use a kernel with nftables netdev ingress and fwd (CONFIG_NFT_FWD_NETDEV)",
        "veth": "use a kernel with CONFIG_VETH",
    }
    return Capability(name, False, reason, cures[name])


def _hash_seed() -> Capability:
    here = os.path.exists("/proc/sys/net/ipv4/fib_multipath_hash_seed")
    return Capability(
        "hash_seed",
        here,
        "" if here else "this kernel has no net.ipv4.fib_multipath_hash_seed",
        "" if here else "paths differ from boot to boot, tiers may polarise; Linux 6.11 has it",
    )


def _frr() -> Capability:
    try:
        zebra = binaries() / "zebra"
    except CapabilityError as error:
        reason, _, cure = str(error).partition("; ")
        return Capability("frr", False, reason, cure)
    if shutil.which("vtysh") is None:
        return Capability("frr", False, "no program vtysh", "install FRR with its vtysh")
    done = subprocess.run([str(zebra), "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"version (\S+)", done.stdout)
    return Capability("frr", True, reason=f"version {version[1]}" if version else "")


def _sched_fifo() -> Capability:
    reason = _tried(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
    cure = "run as root or grant CAP_SYS_NICE; without it timed actions are late under load"
    return Capability("sched_fifo", not reason, reason, cure if reason else "")
