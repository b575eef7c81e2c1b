"""Traps that silently give wrong results, each planted, and what keeps us out of it.

T3 (a library that ignores a look-up's ports) is in `test_path.py`.
"""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from chaos import netlink as nl
from chaos import topology
from chaos.change import Place
from chaos.drivers.fib import read_fib
from chaos.drivers.netns.links import veth_pair
from chaos.drivers.netns.plan import End
from chaos.fabric import Fabric, Link, Node, Port
from chaos.netns import inside
from chaos.path import Tracer, lookup

pytestmark = pytest.mark.netns


# ---- T1: veth ends that share an index ----------------------------------------------------------

FLAPS = 20
GAP_S = 0.05


class Listener:
    """Counts carrier changes of one interface that the kernel announces."""

    def __init__(self, path, ifindex):
        self.ifindex = ifindex
        self.kernel = inside(path, lambda: nl.Netlink.open((nl.RTNLGRP_LINK,), 1 << 20))

    def changes(self):
        """How often the carrier changed, as far as it was announced within a second from now."""
        told = []
        self.kernel.sock.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            while len(told) < 4 * FLAPS:
                for got in nl.split(self.kernel.sock.recv(1 << 16)):
                    index, flags = struct.unpack_from("=iI", got.body, 4)
                    if got.kind == nl.RTM_NEWLINK and index == self.ifindex:
                        told.append(bool(flags & nl.IFF_LOWER_UP))
        self.kernel.close()
        return sum(here != before for before, here in zip([True, *told], told, strict=False))


def flap(path, ifindex):
    """Down and up, `FLAPS` times, `GAP_S` apart."""
    kernel = inside(path, nl.Netlink.open)
    at = time.monotonic()
    for turn in range(2 * FLAPS):
        at += GAP_S
        time.sleep(max(0.0, at - time.monotonic()))
        kernel.send(nl.set_updown(ifindex, turn % 2 == 1))
    time.sleep(GAP_S)
    kernel.close()


def make_pair(driver, index, wire_index):
    """One more veth pair between host1 and the wire, with the indexes given."""
    end = End(Port("host1", "planted"), index, "02:00:00:00:00:99", "planted", wire_index)
    with contextlib.ExitStack() as files:
        fds = []
        for path in (driver.namespaces()["host1"], driver.wire):
            fds.append(os.open(path, os.O_RDONLY))
            files.callback(os.close, fds[-1])
        kernel = nl.Netlink.open()
        kernel.send(veth_pair(end, 1500, *fds))
        kernel.close()
    for path, number in ((driver.wire, wire_index), (driver.namespaces()["host1"], index)):
        inside(path, lambda number=number: up(number))


def up(ifindex):
    kernel = nl.Netlink.open()
    kernel.send(nl.set_updown(ifindex, True))
    kernel.close()


def seen(driver, ifindex, wire_ifindex):
    listener = Listener(driver.namespaces()["host1"], ifindex)
    flap(driver.wire, wire_ifindex)
    return listener.changes()


def test_t1_a_shared_index_loses_carrier_events_and_ours_do_not(bring_up):
    """40 changes, 20 a second. Shared: the kernel batches them, about one a second gets through."""

    async def scenario():
        async with bring_up(topology.load("pair")) as driver:
            place = driver.plan.ends_of("host1")[0].port
            ours, hidden = driver.resolve(Place.at(place)), driver.resolve(Place.at(place, "wire"))
            assert seen(driver, ours.ifindex, hidden.ifindex) == 2 * FLAPS
            assert (await driver.audit()).findings == ()

            make_pair(driver, 77, 77)
            await asyncio.sleep(1.2)  # its own first events are batched too
            assert seen(driver, 77, 77) < FLAPS
            assert [text for text in (await driver.audit()).findings if "planted" in text] == [
                "host1:planted has the same interface index as its peer (77); "
                "carrier events will be late or lost"
            ]

    asyncio.run(scenario())


# ---- T2: FRR believes in a leg that the kernel lost ---------------------------------------------


def test_t2_the_audit_finds_a_leg_that_only_frr_believes_in(bring_up, square):
    async def scenario():
        async with bring_up(square) as driver:
            assert (await driver.audit()).findings == ()
            route = "10.7.2.0/24 via 169.254.0.1 dev eth1 onlink proto bgp metric 20"
            done = await driver.exec("r1", ("ip", "route", "replace", *route.split()))
            assert done.code == 0, done.stderr

            findings = (await driver.audit()).findings

            said = "r1: 10.7.2.0/24: FRR believes in 2 legs (eth1, eth2), the kernel has 1 (eth1)"
            assert findings == (said,)

    asyncio.run(scenario())


def test_t2_a_flapped_link_gets_its_leg_back_in_the_kernel(bring_up, square):
    """The file says nothing of nexthop groups; the driver keeps zebra from using the kernel's."""

    async def legs(driver):
        fib = inside(driver.namespaces()["r1"], read_fib)
        return next(len(found) for prefix, found in fib.items() if str(prefix) == "10.7.2.0/24")

    async def session(driver):
        (families,) = await driver.vtysh("r1", "show bgp summary json")
        return families["ipv4Unicast"]["peers"]["eth1"]["state"] == "Established"

    async def scenario():
        async with bring_up(square) as driver:
            nexthops = (await driver.exec("r1", ("ip", "nexthop", "show"))).stdout
            assert nexthops == b"", "zebra made kernel nexthop objects"
            wire = driver.resolve(Place("r1", "eth1", "wire"))
            inside(wire.netns, lambda: set_link(wire.ifindex, False))
            await until(lambda: legs(driver), 1)
            await until(lambda: session(driver), False)
            inside(wire.netns, lambda: set_link(wire.ifindex, True))
            await driver.wait_ready(30)
            assert await legs(driver) == 2
            assert (await driver.audit()).findings == ()

    asyncio.run(scenario())


def set_link(ifindex, is_up):
    kernel = nl.Netlink.open()
    kernel.send(nl.set_updown(ifindex, is_up))
    kernel.close()


async def until(question, wanted, deadline_s=5.0):
    give_up = time.monotonic() + deadline_s
    while (found := await question()) != wanted:
        assert time.monotonic() < give_up, f"waited {deadline_s:g} s for {wanted}, got {found}"
        await asyncio.sleep(0.02)


# ---- T4: equal hash seeds -----------------------------------------------------------------------

FLOWS = 400


def tree():
    """s chooses between a and b; each of these between two routers of its own, towards d."""
    legs = {"s": ("a", "b"), "a": ("a1", "a2"), "b": ("b1", "b2")}
    names = ["s", "a", "b", "a1", "a2", "b1", "b2", "d"]
    pairs = [(near, far) for near, fars in legs.items() for far in fars]
    pairs += [(name, "d") for name in ("a1", "a2", "b1", "b2")]
    count = dict.fromkeys(names, 0)
    links, lines = [], {name: [] for name in names}
    for number, (near, far) in enumerate(pairs):
        ports = []
        for name, last in ((near, 0), (far, 1)):
            count[name] += 1
            ports.append(Port(name, f"eth{count[name]}"))
            lines[name].append(f"ip addr add 10.6.{number}.{last}/31 dev eth{count[name]}")
        links.append(Link(*ports))
    gateway = {pair: f"10.6.{number}.1" for number, pair in enumerate(pairs)}
    for near, fars in legs.items():
        hops = " ".join(f"nexthop via {gateway[near, far]}" for far in fars)
        lines[near].append(f"ip route add 10.66.0.0/16 {hops}")
    for near in ("a1", "a2", "b1", "b2"):
        lines[near].append(f"ip route add 10.66.0.0/16 via {gateway[near, 'd']}")
    lines["d"].append("ip addr add 10.66.0.1/16 dev lo")
    lines["s"].append("ip addr add 10.65.0.1/32 dev lo")
    nodes = {name: Node(name, role="router", settings={"exec": lines[name]}) for name in names}
    return Fabric("tree", nodes, tuple(links)), pairs


def paths(driver, pairs):
    """How many of the flows take each of the four ways, by the kernels' own look-ups."""
    taken = {}
    kernels = {name: inside(driver.namespaces()[name], nl.Netlink.open) for name in ("s", "a", "b")}
    leaves = {}  # node, index of the interface it leaves by -> next node
    enters = {}
    for (near, far), cable in zip(pairs, driver.plan.cables, strict=True):
        by_node = {end.port.node: end.ifindex for end in cable.ends}
        leaves[near, by_node[near]], enters[near, far] = far, by_node[far]
    for sport in range(1024, 1024 + FLOWS):
        at, iif, way = "s", 0, ""
        while at in kernels:
            flow = {"proto": "udp", "sport": sport, "dport": 4791, "iif": iif}
            hop = lookup(kernels[at], "10.66.0.1", "10.65.0.1", **flow)
            far = leaves[at, hop.ifindex]
            at, iif, way = far, enters[at, far], far
        taken[way] = taken.get(way, 0) + 1
    for kernel in kernels.values():
        kernel.close()
    return taken


def test_t4_equal_seeds_polarise_and_ours_spread(bring_up):
    """400 flows over four ways: at equal chances each gets 100 ± 8.7; 40 is seven deviations off.

    With one seed the second tier repeats the choice of the first: two of the four ways stay empty.
    """
    if not Path("/proc/sys/net/ipv4/fib_multipath_hash_seed").exists():
        pytest.skip("this kernel has no fib_multipath_hash_seed")
    fabric, pairs = tree()

    async def scenario():
        async with bring_up(fabric) as driver:
            spread = paths(driver, pairs)
            assert len(spread) == 4
            assert min(spread.values()) > 40, spread
            assert (await driver.audit()).findings == ()

            for name in ("s", "a", "b"):
                key = "net.ipv4.fib_multipath_hash_seed=4711"
                assert (await driver.exec(name, ("sysctl", "-w", key))).code == 0

            assert len(paths(driver, pairs)) == 2
            said = "s, a, b share the hash seed 4711: flows will polarise"
            assert (await driver.audit()).findings == (said,)

    asyncio.run(scenario())


# ---- T5: a drop at egress is not silent ---------------------------------------------------------


def test_t5_a_drop_at_egress_tells_the_sender_and_ours_does_not(bring_up):
    async def scenario():
        async with bring_up(topology.load("pair")) as driver:
            host, other = list(driver.addresses())
            address = driver.addresses()[other]
            end = driver.plan.ends_of(host)[0]
            path = driver.namespaces()[host]

            inside(path, lambda: nft(f"{_table('egress', end.port.name)}"))
            assert inside(path, lambda: send(address)) == "No buffer space available"
            inside(path, lambda: nft("delete table netdev t"))

            inside(driver.wire, lambda: nft(_table("ingress", end.wire_name)))
            assert inside(path, lambda: send(address)) == ""
            assert "packets 5" in inside(driver.wire, lambda: nft("list table netdev t"))

    asyncio.run(scenario())


def _table(hook, device):
    kind = f"type filter hook {hook} device {device} priority -500;"
    return f"table netdev t {{\n chain c {{ {kind}\n udp dport 4791 counter drop\n }}\n}}"


def nft(text):
    return subprocess.run(("nft", text), check=True, capture_output=True, text=True).stdout


def send(address):
    """What the kernel says to five datagrams; empty when it is content."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: tell me of every error
        try:
            for _ in range(5):
                door.sendto(b"x", (address, 4791))
        except OSError as error:
            return error.strerror
    return ""


# ---- T6: a socket's hash outlives the way through a veth pair ------------------------------------


@pytest.mark.parametrize(("policy", "fields", "sure"), [("1", "7", False), ("3", "55", True)])
def test_t6_tcp_is_hashed_by_its_sockets_unless_headers_are_asked_for(
    two_paths, policy, fields, sure
):
    """32 connections over two equal paths: by policy 1 the look-up is a coin flip for TCP.

    The chance that 32 coin flips all come out right is 2e-10.
    """
    for router in ("r1", "r2"):
        for name, value in (("policy", policy), ("fields", fields)):
            path = Path(f"/proc/sys/net/ipv4/fib_multipath_hash_{name}")
            two_paths.inside(router, lambda p=path, v=value: p.write_text(v))
    server = two_paths.inside("h2", lambda: socket.create_server(("10.9.8.2", 7000), backlog=64))
    right = 0
    with server, Tracer(two_paths.fabric, two_paths.namespaces) as tracer:
        for port in range(40000, 40032):
            right += crosses_as_predicted(two_paths, tracer, server, port)

    assert (right == 32) is sure, f"{right} of 32 as predicted"


def crosses_as_predicted(two_paths, tracer, server, port):
    """Whether 20 segments of one connection leave r1 by the port that the look-up names."""
    client = two_paths.inside("h1", lambda: connect(port))
    accepted, _ = server.accept()
    with client, accepted:
        path = tracer.crossings("h1", "10.9.1.2", "10.9.8.2", "tcp", port, 7000)
        link = next(crossing.link for crossing in path if crossing.source == "r1")
        out = link.port_of("r1")
        before = tracer.counters([link])[out].tx_packets
        for _ in range(20):
            client.send(b"x" * 1000)
            accepted.recv(65536)
        return tracer.counters([link])[out].tx_packets - before >= 20


def connect(port):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind(("10.9.1.2", port))
    client.connect(("10.9.8.2", 7000))
    return client
