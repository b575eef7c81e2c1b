"""What the hands read and write on real namespaces: snapshots, saved state, nftables."""

import asyncio
import subprocess
import sys
import time

import pytest

from chaos import snapshot
from chaos.errors import ApplyError, FabricError
from chaos.netlink import Netlink
from chaos.netns import inside
from chaos.nft import Compiler, Tables
from chaos.saved import Saved, save

pytestmark = pytest.mark.netns


def difference(two_hosts, before):
    return snapshot.difference(before, snapshot.take(two_hosts.namespaces))


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("ip link set eth2 down", "h1: link eth2"),
        ("ip link set eth1 mtu 1300", "mtu 1300"),
        ("ip addr add 10.77.0.1/32 dev eth1", "h1: address 10.77.0.1/32 on eth1: new"),
        ("ip -6 addr del 2001:db8:0::1/64 dev eth1", "h1: address 2001:db8::1/64 on eth1: missing"),
        ("ip route add 10.9.0.0/16 via 10.0.0.2 metric 7", "route 10.9.0.0/16 proto boot metric 7"),
        ("ip route add blackhole 10.9.0.0/16", "h1: route blackhole 10.9.0.0/16 proto boot: new"),
        ("ip neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev eth1", "neighbour 10.0.0.9 02:00:"),
        ("ip neigh add proxy 10.0.0.9 dev eth1", "h1: proxy neighbour 10.0.0.9"),
        ("ip nexthop add id 5 via 10.0.0.2 dev eth1", "h1: nexthop 5 via 10.0.0.2 dev eth1: new"),
        ("tc qdisc add dev eth1 root tbf rate 1mbit burst 9kb latency 9ms", "h1: qdisc tbf on"),
        ("nft add table inet x", "h1: nftables table inet x"),
    ],
)
def test_a_difference_is_told_in_words(two_hosts, command, told):
    before = snapshot.take(two_hosts.namespaces)
    two_hosts.run("h1", *command.split())
    found = difference(two_hosts, before)
    assert any(told in sentence for sentence in found), found
    assert all(sentence.endswith((": new", ": missing")) for sentence in found)


def test_what_moves_by_itself_is_no_difference(two_hosts):
    legs = ("nexthop", "via", "10.0.0.2", "nexthop", "via", "10.1.0.2")
    two_hosts.run("h1", "ip", "route", "add", "10.9.0.0/16", *legs)
    two_hosts.run("h1", "nft", "table inet x {\ncounter c { }\n}")
    before = snapshot.take(two_hosts.namespaces)

    two_hosts.run("h1", "ip", "route", "replace", "10.9.0.0/16", *legs[3:], *legs[:3])
    assert two_hosts.ping() == 3  # counters, dynamic neighbours
    two_hosts.run("h1", "nft", "delete table inet x")
    two_hosts.run("h1", "nft", "table inet x {\ncounter c { packets 7 bytes 700; }\n}")

    assert difference(two_hosts, before) == ()


def test_settling_waits_for_the_state_and_no_longer(two_hosts):
    before = snapshot.take(two_hosts.namespaces)
    two_hosts.run("h1", "ip", "route", "add", "10.9.0.0/16", "via", "10.0.0.2")

    async def go():
        settling = asyncio.create_task(snapshot.settle(two_hosts.namespaces, before, 30))
        await asyncio.sleep(0.2)
        assert not settling.done()
        two_hosts.run("h1", "ip", "route", "del", "10.9.0.0/16")
        started = time.monotonic()
        assert await settling == ()
        assert time.monotonic() - started < 10
        two_hosts.run("h1", "ip", "route", "add", "10.9.0.0/16", "via", "10.0.0.2")
        (left,) = await snapshot.settle(two_hosts.namespaces, before, 0.1)
        assert "10.9.0.0/16" in left

    asyncio.run(go())


def test_a_namespace_that_is_gone_is_told(two_hosts):
    with pytest.raises(FabricError, match=r"/run/netns/nowhere cannot be opened"):
        snapshot.take({"h9": "/run/netns/nowhere"})


def test_daemons_routes_are_left_to_the_daemon(two_hosts):
    for route in (
        "10.8.0.0/16 via 10.0.0.2 proto bgp",
        "10.9.0.0/16 via 10.0.0.2 proto static",
        "10.7.0.0/16 via 10.1.0.2",
    ):
        two_hosts.run("h1", "ip", "route", "add", *route.split())

    def read():
        link = Netlink.open()
        try:
            return save(link, two_hosts.index["h1:eth1", "node"])
        finally:
            link.close()

    saved = inside(two_hosts.path("h1"), read)
    said = "\n".join(" ".join(argv) for argv in saved.commands)
    assert "10.9.0.0/16" in said
    assert "10.8.0.0/16" not in said, "bgp brings it back"
    assert "10.7.0.0/16" not in said, "it goes over another interface"
    assert Saved.from_json(saved.to_json()) == saved


@pytest.mark.parametrize("command", [False, True], ids=["library", "command"])
def test_both_ways_to_nftables_do_the_same(two_hosts, command):
    def work():
        compiler, tables = Compiler(command=command), Tables.open()
        try:
            compiler.run("table netdev railbreak_t {\ncounter a { packets 3 bytes 9; }\n}\n")
            assert tables.names() == {"railbreak_t"}
            assert tables.counters("railbreak_t") == {"a": 3}
            assert "railbreak_t" in compiler.run("list ruleset")
            with pytest.raises(ApplyError, match=r"nftables refused: .*syntax error"):
                compiler.run("no such command")
            assert tables.delete("railbreak_t")
            assert not tables.delete("railbreak_t")
            assert tables.counters("railbreak_t") == {}
        finally:
            compiler.close()
            tables.close()

    inside(two_hosts.path("h1"), work)
    assert two_hosts.run("h1", "nft", "list", "ruleset") == ""


def test_a_handle_stays_with_the_namespace_it_was_opened_in(two_hosts):
    """Warm handles are used from a thread that lives elsewhere."""
    compiler, tables = inside(two_hosts.path("h1"), lambda: (Compiler(), Tables.open()))
    try:
        compiler.run("add table netdev railbreak_here")
        assert tables.names() == {"railbreak_here"}
    finally:
        compiler.close()
        tables.close()
    assert "railbreak_here" in two_hosts.run("h1", "nft", "list", "tables")
    assert two_hosts.run("h2", "nft", "list", "tables") == ""


USES_THE_LIBRARY = """
import sys, threading
from chaos.netns import inside
from chaos.nft import Compiler
wrong = []
def work(name):
    for _ in range(200):
        compiler = Compiler()
        if f'fwd to "{name}7"' not in compiler.run("list ruleset"):
            wrong.append(name)
        compiler.close()
def run(name, path):
    inside(path, lambda: work(name))
threads = [threading.Thread(target=run, args=one.split("=")) for one in sys.argv[1:]]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(wrong)
"""


def test_the_library_is_used_by_one_thread_at_a_time(two_hosts):
    """Its table of interface names is the process's own: two threads in it abort the process.

    The same interface numbers have other names in each namespace, so a stale table would show too.
    """
    for node in two_hosts.NODES:
        rules = []
        for number in range(8):
            name = f"{node}{number}"
            more = ("index", str(8000 + number), "type", "veth", "peer", "name", f"x{number}")
            two_hosts.run(node, "ip", "link", "add", name, *more)
            hook = f"type filter hook ingress device x{number} priority 0;"
            rules.append(f"chain c{number} {{ {hook} fwd to {name}; }}")
        two_hosts.run(node, "nft", "\n".join(("table netdev f {", *rules, "}")))

    where = (f"{node}={path}" for node, path in two_hosts.namespaces.items())
    done = subprocess.run(
        (sys.executable, "-c", USES_THE_LIBRARY, *where),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")
