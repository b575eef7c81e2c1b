"""Mininet at work; run by the system's Python, in namespaces of its own (see mininet_peer).

One JSON line in (`nodes`, `links`, `addresses`, `gateways`), one JSON line out per deployment. It
ends with its input. `mn -c` is never run and no system setting is changed.
"""

import json
import sys
import time
from typing import Any

from mininet.log import setLogLevel
from mininet.net import Mininet

_CARRIER_S = 10.0


def deploy(order: dict[str, Any]) -> dict[str, Any]:
    """One network up and down; seconds of each part."""
    begun = time.perf_counter()
    net = Mininet(controller=None)
    for name in order["nodes"]:
        gateway = order["gateways"].get(name)
        route = {"defaultRoute": f"via {gateway}"} if gateway else {}
        net.addHost(name, ip=order["addresses"].get(name), **route)
    for a, b in order["links"]:
        net.addLink(a, b)
    net.start()
    up_s = time.perf_counter() - begun
    ports = carriers(net)
    shells = [host.shell for host in net.hosts]
    begun = time.perf_counter()
    net.stop()
    stop_s = time.perf_counter() - begun
    for shell in shells:
        shell.wait()
    gone_s = time.perf_counter() - begun
    return {"up_s": up_s, "stop_s": stop_s, "gone_s": gone_s, "ports": ports}


def carriers(net: Mininet) -> int:
    """Ports with carrier; that a deployment is whole is looked at outside its time."""
    until = time.monotonic() + _CARRIER_S
    wanted = 2 * len(net.links)
    while True:
        found = sum(host.cmd("ip -o link show type veth").count("LOWER_UP") for host in net.hosts)
        if found >= wanted or time.monotonic() > until:
            return found
        time.sleep(0.05)


def main() -> None:
    """Obey until the input ends."""
    setLogLevel("error")
    Mininet.inited = True  # its own set-up would change limits of the whole machine
    print(json.dumps({"ev": "ready"}), flush=True)
    for line in sys.stdin:
        print(json.dumps(deploy(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
