"""Mininet as a peer: kept in namespaces of its own, deploying what we deploy.

It runs as pid 1 of a pid namespace, in a network namespace, so that nothing it makes can be seen
outside or outlive it. Debian's package `mininet` works with the system's Python only.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ground import await_freed, child
from chaos.errors import FabricError
from chaos.fabric import Fabric

PYTHON = "/usr/bin/python3"
ABSENT = "Mininet is not on this machine; to compare with it: apt-get install mininet"
_ANSWER_S = 60.0


def here() -> bool:
    """Whether Mininet can be run."""
    if not Path(PYTHON).exists():
        return False
    argv = (PYTHON, "-c", "import mininet.net")
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def order_of(fabric: Fabric) -> dict[str, Any]:
    """The same nodes and links, and the hosts' addresses and gateways as their exec lines give."""
    addresses, gateways = dict[str, str](), dict[str, str]()
    for name, node in fabric.nodes.items():
        for line in node.settings.get("exec") or ():
            words = str(line).split()
            if words[:3] == ["ip", "addr", "add"]:
                addresses[name] = words[3]
            if words[:3] == ["ip", "route", "add"] and "via" in words:
                gateways[name] = words[words.index("via") + 1]
    return {
        "nodes": list(fabric.nodes),
        "links": [list(link.nodes) for link in fabric.links],
        "addresses": addresses,
        "gateways": gateways,
    }


@dataclass(slots=True)
class MininetPeer:
    """A running worker that deploys one fabric again and again."""

    process: subprocess.Popen[bytes]
    order: dict[str, Any]

    def deploy(self) -> tuple[float, float]:
        """One deployment; seconds until it is up, and from then until the kernel freed it all.

        Raises:
            FabricError: it did not come up whole.
        """
        got = self._ask(self.order)
        begun = time.perf_counter()
        await_freed()
        wanted = 2 * len(self.order["links"])
        if got["ports"] != wanted:
            raise FabricError(f"Mininet brought {got['ports']} of {wanted} ports up")
        return got["up_s"], got["gone_s"] + time.perf_counter() - begun

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line it says."""
        assert self.process.stdout is not None
        line = b""
        if select.select([self.process.stdout], [], [], _ANSWER_S)[0]:
            line = self.process.stdout.readline()
        if not line:
            raise FabricError("Mininet gave no answer")
        found: dict[str, Any] = json.loads(line)
        return found


@contextlib.contextmanager
def mininet(fabric: Fabric) -> Iterator[MininetPeer | None]:
    """A worker; None where Mininet is absent."""
    if not here():
        yield None
        return
    own = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    worker = str(Path(__file__).with_name("mininet_worker.py"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with child((*own, PYTHON, worker), start_new_session=True, **pipes) as process:
        peer = MininetPeer(process, order_of(fabric))
        peer.answer()  # it is ready; importing is not counted
        yield peer
