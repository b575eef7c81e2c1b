"""Two hosts and two routers with two equal paths between them, of namespaces and static routes."""

import os
import subprocess
from pathlib import Path

from chaos.fabric import Fabric, Link, Node, Port
from chaos.netns import inside

TWO_PATHS = {
    # node: port: address
    "h1": {"eth1": "10.9.1.2/24"},
    "r1": {"eth1": "10.9.1.1/24", "eth2": "10.9.12.1/24", "eth3": "10.9.13.1/24"},
    "r2": {"eth1": "10.9.8.1/24", "eth2": "10.9.12.2/24", "eth3": "10.9.13.2/24"},
    "h2": {"eth1": "10.9.8.2/24"},
}
TWO_PATHS_LINKS = (
    ("h1:eth1", "r1:eth1"),
    ("r1:eth2", "r2:eth2"),
    ("r1:eth3", "r2:eth3"),
    ("r2:eth1", "h2:eth1"),
)
TWO_PATHS_ROUTES = {
    "h1": "route add default via 10.9.1.1",
    "h2": "route add default via 10.9.8.1",
    "r1": "route add 10.9.8.0/24 nexthop via 10.9.12.2 dev eth2 nexthop via 10.9.13.2 dev eth3",
    "r2": "route add 10.9.1.0/24 nexthop via 10.9.12.1 dev eth2 nexthop via 10.9.13.1 dev eth3",
}


class TwoPaths:
    """A running little fabric: `fabric`, `namespaces`, `addresses`, and `ip` to poke it."""

    def __init__(self):
        self.prefix = f"rbt{os.getpid()}"
        self.namespaces = {node: f"/run/netns/{self.prefix}{node}" for node in TWO_PATHS}
        self.addresses = {"h1": "10.9.1.2", "h2": "10.9.8.2"}
        nodes = {
            name: Node(name, role="host" if name.startswith("h") else "router")
            for name in TWO_PATHS
        }
        links = tuple(Link(_port(a), _port(b)) for a, b in TWO_PATHS_LINKS)
        self.fabric = Fabric("two-paths", nodes, links)

    def up(self):
        for node in TWO_PATHS:
            _run("ip", "netns", "add", self.prefix + node)
            for setting, value in (
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv4/fib_multipath_hash_policy", "1"),
                ("net/ipv4/conf/all/rp_filter", "0"),
                ("net/ipv4/conf/default/rp_filter", "0"),
                ("net/ipv4/conf/default/ignore_routes_with_linkdown", "1"),
                ("net/ipv4/conf/all/ignore_routes_with_linkdown", "1"),
            ):
                self.inside(node, lambda s=setting, v=value: Path("/proc/sys", s).write_text(v))
        for number, (a, b) in enumerate(TWO_PATHS_LINKS):
            (x, xn), (y, yn) = a.split(":"), b.split(":")
            first = ("link", "add", xn, "index", str(1000 + 2 * number), "netns", self.prefix + x)
            second = ("peer", "name", yn, "index", str(1001 + 2 * number))
            _run("ip", *first, "type", "veth", *second, "netns", self.prefix + y)
        for node, ports in TWO_PATHS.items():
            self.ip(node, "link set lo up")
            for port, address in ports.items():
                self.ip(node, f"address add {address} dev {port}")
                self.ip(node, f"link set {port} up")
        for node, route in TWO_PATHS_ROUTES.items():
            self.ip(node, route)
        return self

    def down(self):
        for node in TWO_PATHS:
            subprocess.run(["ip", "netns", "del", self.prefix + node], check=False)

    def ip(self, node, command):
        _run("ip", "-n", self.prefix + node, *command.split())

    def drop_at(self, node, port):
        """Silently lose what arrives at a port; the returned function ends it."""
        table = "netdev railbreak_test"
        hook = f"type filter hook ingress device {port} priority -500;"
        chain = f"{{ {hook} counter drop; }}"
        self.run(node, "nft", f"table {table} {{ chain c {chain}; }}")
        return lambda: self.run(node, "nft", f"delete table {table}")

    def run(self, node, *argv):
        _run("ip", "netns", "exec", self.prefix + node, *argv)

    def inside(self, node, work):
        return inside(self.namespaces[node], work)


def _port(text):
    return Port(*text.split(":"))


def _run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
