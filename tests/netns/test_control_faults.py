"""Faults of switches and control planes on real FRR: what hosts and routers see, and no trace."""

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import time

import pytest

from chaos import journal, recover, snapshot
from chaos.errors import BlockedError, CapabilityError, FabricError
from chaos.fabric import Stream
from chaos.netns import inside
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration
from faults.acl_drop import AclDrop
from faults.bfd_down import BfdDown
from faults.bgp_reset import BgpReset
from faults.daemon_freeze import DaemonFreeze
from faults.daemon_kill import DaemonKill
from faults.daemon_restart import DaemonRestart
from faults.forwarding_loop import ForwardingLoop
from faults.forwarding_off import ForwardingOff
from faults.hash_polarised import HashPolarised
from faults.member_lost import MemberLost
from faults.prefix_churn import PrefixChurn
from faults.route_blackhole import RouteBlackhole
from faults.route_detour import RouteDetour
from faults.route_withdraw import RouteWithdraw

pytestmark = pytest.mark.netns

LIFE = Duration.parse("60 s")
H1, H2, BEHIND_R2 = "10.7.1.2", "10.7.2.2", "10.7.2.0/24"
FIRST, PORTS, EACH = 49152, 16, 10


def on_a_loop(test):
    """An asynchronous test, run to its end."""

    @functools.wraps(test)
    def run(*args, **words):
        return asyncio.run(test(*args, **words))

    return run


class Held:
    """One fault on a running fabric: `proof` once it is healed."""

    def __init__(self, hands, path):
        self.hands, self.path, self.proof = hands, path, None

    async def in_force(self):
        """Return when the journal says that every change came into force."""
        for _ in range(1500):
            if all("in_force" in one.history for one in journal.read(self.path)):
                return
            assert not self.hands._done.is_set() or self.hands._failure is None, self.hands._failure
            await asyncio.sleep(0.01)
        raise AssertionError("not in force")


async def armed(driver, tmp_path, fault):
    path = driver.folder / f"journal-{fault.name}-{now_ns()}.jsonl"
    changes = fault.changes(driver.fabric)
    return Held(await driver.arm(changes, journal=path, max_life=LIFE, log_dir=tmp_path), path)


@contextlib.asynccontextmanager
async def broken(driver, tmp_path, fault):
    """The fault in force for the body; afterwards it is healed, and everything is as before."""
    before = await driver.snapshot()
    held = await armed(driver, tmp_path, fault)
    async with held.hands:
        await held.hands.start(now_ns(), [InForce(0, 40 * 10**9)])
        await held.in_force()
        yield held
        held.proof = await held.hands.heal()
    assert (held.proof.in_force, held.proof.taken_back) == (True, True), held.proof
    assert held.proof.trouble == ()
    await driver.wait_ready(30)
    assert await snapshot.settled(driver.snapshot, before, 20) == ()
    assert recover.in_force([held.path]) == []


def received(driver, source=H1, target=H2, ports=PORTS, each=EACH, nodes=("h1", "h2")):
    """Datagrams that arrived, per source port, of `each` sent from every port."""
    spaces = driver.namespaces()
    sink = inside(spaces[nodes[1]], lambda: socket.socket(type=socket.SOCK_DGRAM))
    sink.bind((target, 5201))
    sink.settimeout(0.5)
    got = dict.fromkeys(range(FIRST, FIRST + ports), 0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(sink)
        for port in got:
            out = inside(spaces[nodes[0]], lambda: socket.socket(type=socket.SOCK_DGRAM))
            stack.enter_context(out)
            out.bind((source, port))
            for _ in range(each):
                with contextlib.suppress(OSError):  # an ICMP error of an earlier one
                    out.sendto(b"x", (target, 5201))
        with contextlib.suppress(TimeoutError):
            while sum(got.values()) < ports * each:
                got[sink.recvfrom(16)[1][1]] += 1
    return got


ALL = dict.fromkeys(range(FIRST, FIRST + PORTS), EACH)
NONE = dict.fromkeys(ALL, 0)


async def legs(driver, node="r1", source="h1", target="h2", ends=(H1, H2)):
    """Ports of `node` that the flows leave by."""
    paths = driver.paths()
    found = set()
    for port in ALL:
        for one in await paths.crossings(Stream(source, target, *ends, 17, port, 5201)):
            if one.source == node:
                found.add(one.link.port_of(node).name)
    paths.close()
    return found


async def established(driver, node):
    (told,) = await driver.vtysh(node, "show bgp summary json")
    peers = told["ipv4Unicast"]["peers"]
    return {name for name, peer in peers.items() if peer["state"] == "Established"}


async def config(driver, node):
    done = await driver.exec(node, ("vtysh", "-c", "show running-config"))
    return done.stdout.decode()


async def rib(driver, node, prefix=BEHIND_R2):
    """Interfaces of the route that the RIB has selected."""
    (told,) = await driver.vtysh(node, f"show ip route {prefix} json")
    (chosen,) = [one for one in told.get(prefix, ()) if one.get("selected")] or [{}]
    return {hop.get("interfaceName") for hop in chosen.get("nexthops", ())}


async def _none_of(driver, node):
    return daemons(driver, node) == {}


async def until(test, deadline_s=10.0):
    """Return when `await test()` holds."""
    give_up = time.monotonic() + deadline_s
    while not await test():
        assert time.monotonic() < give_up, "it never came to hold"
        await asyncio.sleep(0.05)


# ---- routes of ours -----------------------------------------------------------------------------


@on_a_loop
async def test_a_black_hole_takes_a_prefix_and_the_control_plane_is_well(
    bring_up, square, tmp_path
):
    async with bring_up(square) as driver:
        assert received(driver) == ALL
        sessions = await established(driver, "r1")
        async with broken(driver, tmp_path, RouteBlackhole("r1", BEHIND_R2)) as held:
            assert received(driver) == NONE
            assert received(driver, H2, H1, nodes=("h2", "h1")) == ALL  # the other way is well
            assert await established(driver, "r1") == sessions
            assert await rib(driver, "r1") == {"eth1", "eth2"}
            assert (await driver.exec("h1", ("ping", "-c1", "-W1", "10.7.1.1"))).code == 0
        assert [one.hit for one in held.proof.changes] == [1]
        assert received(driver) == ALL
        with pytest.raises(BlockedError, match="a route of protocol 194 and metric 5"):
            async with broken(driver, tmp_path, RouteBlackhole("r1", BEHIND_R2)):
                await armed(driver, tmp_path, RouteBlackhole("r1", BEHIND_R2))


@on_a_loop
async def test_a_prefix_of_the_routers_own_needs_a_longer_one_and_a_refusal_is_told(
    bring_up, square, tmp_path
):
    async with bring_up(square) as driver:
        async with broken(driver, tmp_path, RouteBlackhole("r2", BEHIND_R2)):
            assert received(driver) == ALL  # the interface's own prefix is at metric 0
        async with broken(driver, tmp_path, RouteBlackhole("r2", f"{H2}/32")):
            assert received(driver) == NONE
        async with broken(driver, tmp_path, RouteBlackhole("r1", f"{H2}/32", "unreachable")):
            done = await driver.exec("h1", ("ping", "-c5", "-i0.5", "-W1", H2))  # ICMP is rationed
            assert b"Host Unreachable" in done.stdout
        assert received(driver) == ALL


@on_a_loop
async def test_a_detour_leaves_by_the_port_that_is_named(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        assert await legs(driver) == {"eth1", "eth2"}
        async with broken(driver, tmp_path, RouteDetour("r1", BEHIND_R2, "eth2")):
            assert await legs(driver) == {"eth2"}
            assert await rib(driver, "r1") == {"eth1", "eth2"}
            assert received(driver) == ALL
        assert await legs(driver) == {"eth1", "eth2"}


@on_a_loop
async def test_a_loop_carries_every_packet_many_times_and_delivers_none(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        link = square.link("r1:eth1--r2:eth1")
        target = f"{H2}/32"
        paths = driver.paths()
        async with broken(driver, tmp_path, ForwardingLoop(link.id, target)):
            before = (await paths.counters((link,)))[link.a].tx_packets
            assert received(driver, ports=1) == {FIRST: 0}
            carried = (await paths.counters((link,)))[link.a].tx_packets - before
            assert carried > 20 * EACH
        paths.close()
        assert received(driver) == ALL


@on_a_loop
async def test_a_member_that_is_dead_is_still_hashed_to(bring_up, tmp_path):
    from chaos.drivers import fabric

    ends, nodes = ("10.0.1.1", "10.0.8.1"), ("host1", "host8")
    async with bring_up(fabric("clos-2x4x8")) as driver:
        fault = MemberLost("leaf1", "10.0.8.0/31", "spine1--leaf4")
        assert set(received(driver, *ends, nodes=nodes).values()) == {EACH}
        async with broken(driver, tmp_path, fault):
            await until(lambda: _is(rib(driver, "leaf1", "10.0.8.0/31"), {"eth2"}))
            got = received(driver, *ends, nodes=nodes)
            assert set(got.values()) == {0, EACH}  # whole flows: the hash decides
        assert set(received(driver, *ends, nodes=nodes).values()) == {EACH}


async def _is(coming, wanted):
    return await coming == wanted


# ---- settings, one flow, BFD --------------------------------------------------------------------


@on_a_loop
async def test_a_router_that_does_not_forward_still_answers_and_keeps_its_sessions(
    bring_up, square, tmp_path
):
    async with bring_up(square) as driver:
        sessions = await established(driver, "r1")
        async with broken(driver, tmp_path, ForwardingOff("r1")):
            assert received(driver) == NONE
            assert (await driver.exec("h1", ("ping", "-c1", "-W1", "10.7.1.1"))).code == 0
            await asyncio.sleep(1)
            assert await established(driver, "r1") == sessions
        assert received(driver) == ALL
        async with broken(driver, tmp_path, ForwardingOff("r1", family=6)):
            assert received(driver) == ALL  # IPv4 over IPv6 next hops is IPv4


@on_a_loop
async def test_polarised_hashing_puts_all_flows_of_a_pair_on_one_leg(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        assert await legs(driver) == {"eth1", "eth2"}
        async with broken(driver, tmp_path, HashPolarised("r1")):
            assert len(await legs(driver)) == 1
            assert received(driver) == ALL
        assert await legs(driver) == {"eth1", "eth2"}
        with pytest.raises(BlockedError, match="is 0 already, so writing it breaks nothing"):
            async with broken(driver, tmp_path, HashPolarised("r1")):
                await armed(driver, tmp_path, HashPolarised("r1"))


@on_a_loop
async def test_an_access_list_eats_one_flow_alone(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        async with broken(driver, tmp_path, AclDrop("r1", H1, H2, sport=FIRST)) as held:
            assert received(driver) == ALL | {FIRST: 0}
            assert received(driver, H2, H1, nodes=("h2", "h1")) == ALL
        assert sum(one.hit for one in held.proof.changes) == EACH
        assert received(driver) == ALL


@on_a_loop
async def test_bfd_alone_is_lost_and_the_session_over_it_falls(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        link = square.link("r1:eth1--r2:eth1")
        sessions = await established(driver, "r1")
        async with broken(driver, tmp_path, BfdDown(link.id)) as held:
            await until(lambda: _lost(driver, "eth1"))
            assert await driver.exec("r1", ("ip", "-j", "link", "show", "eth1"))
            (told,) = json.loads(
                (await driver.exec("r1", ("ip", "-j", "link", "show", "eth1"))).stdout
            )
            assert "LOWER_UP" in told["flags"]
            assert received(driver) == ALL  # by the other link, and by this one once BGP is back
            (peers,) = await driver.vtysh("r1", "show bfd peers json")
            assert {one["interface"]: one["status"] for one in peers} == {
                "eth1": "down",
                "eth2": "up",
            }
        assert all(one.hit > 0 for one in held.proof.changes)
        assert await established(driver, "r1") == sessions


async def _lost(driver, interface):
    (peers,) = await driver.vtysh("r1", "show bfd peers json")
    return any(one["interface"] == interface and one["status"] != "up" for one in peers)


# ---- by the router's command line ---------------------------------------------------------------


@on_a_loop
async def test_a_prefix_is_withdrawn_and_the_configuration_is_what_it_was(
    bring_up, square, tmp_path
):
    async with bring_up(square) as driver:
        was, sessions = await config(driver, "r2"), await established(driver, "r2")
        async with broken(driver, tmp_path, RouteWithdraw("r2", BEHIND_R2)):
            await until(lambda: _is(rib(driver, "r1"), set()))
            assert await established(driver, "r2") == sessions
            assert received(driver) == NONE
        assert await config(driver, "r2") == was
        assert received(driver) == ALL
        async with broken(driver, tmp_path, RouteWithdraw("r2", BEHIND_R2, "eth1")):
            await until(lambda: _is(rib(driver, "r1"), {"eth2"}))
            assert received(driver) == ALL
        assert await config(driver, "r2") == was
        with pytest.raises(BlockedError, match=r"r2 does not announce 10\.99\.0\.0/16"):
            await armed(driver, tmp_path, RouteWithdraw("r2", "10.99.0.0/16"))
        with pytest.raises(FabricError, match=r"r2 has no BGP neighbor eth9; it has"):
            await armed(driver, tmp_path, RouteWithdraw("r2", BEHIND_R2, "eth9"))


@on_a_loop
async def test_a_neighbour_with_a_list_of_its_own_is_left_alone(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        lines = ("configure terminal", "router bgp", "address-family ipv4 unicast")
        argv = [w for line in (*lines, "neighbor fab prefix-list own out") for w in ("-c", line)]
        assert (await driver.exec("r2", ("vtysh", *argv))).code == 0
        with pytest.raises(CapabilityError, match="fab has prefix-list own out already"):
            await armed(driver, tmp_path, RouteWithdraw("r2", BEHIND_R2))


@on_a_loop
async def test_churn_withdraws_and_announces_in_turns(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        fault = PrefixChurn("r2", BEHIND_R2, count=2)
        held, seen = await armed(driver, tmp_path, fault), []
        async with held.hands:
            await held.hands.start(now_ns(), fault.schedule(Duration.parse("3 s"), None or _rng()))
            waiting = asyncio.create_task(held.hands.wait())
            while not waiting.done():
                now = bool(await rib(driver, "r1"))
                seen += [now] if not seen or seen[-1] is not now else []
                await asyncio.sleep(0.02)
            await waiting
            proof = await held.hands.heal()
        await until(lambda: _is(rib(driver, "r1"), {"eth1", "eth2"}))
        assert seen[:4] in ([True, False, True, False], [False, True, False, True])
        assert [one.hit for one in proof.changes] == [2]
        assert proof.taken_back


def _rng():
    import random

    return random.Random(1)


async def _dropped(driver, node):
    (told,) = await driver.vtysh(node, "show bgp neighbors json")
    return {name: one["connectionsDropped"] for name, one in told.items()}


@on_a_loop
async def test_a_reset_ends_one_session_or_all_and_a_soft_one_none(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        was = await _dropped(driver, "r1")
        async with broken(driver, tmp_path, BgpReset("r1", "eth1")) as held:
            pass
        assert [one.hit for one in held.proof.changes] == [1]
        now = await _dropped(driver, "r1")
        assert now["eth1"] > was["eth1"]
        assert now["eth2"] == was["eth2"]
        was = await _dropped(driver, "r1")
        for how in ("in", "out"):
            async with broken(driver, tmp_path, BgpReset("r1", how=how)) as held:
                pass
            assert held.proof.changes[0].hit >= 1
        assert await _dropped(driver, "r1") == was
        async with broken(driver, tmp_path, BgpReset("r1")) as held:
            pass
        assert [one.hit for one in held.proof.changes] == [2]
        with pytest.raises(BlockedError, match="r1 has no BGP session with 10"):
            await armed(driver, tmp_path, BgpReset("r1", "10.9.9.9"))


# ---- daemons ------------------------------------------------------------------------------------


def daemons(driver, node):
    """Words of the daemons' command lines in a node, by name."""
    space = os.stat(driver.namespaces()[node]).st_ino
    found = {}
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if not entry.name.isdecimal() or os.stat(f"{entry.path}/ns/net").st_ino != space:
                continue
            with open(f"{entry.path}/cmdline", "rb") as file:
                argv = file.read().split(b"\0")[:-1]
            with open(f"{entry.path}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0].decode()
            if argv and b"/frr/" in argv[0]:
                nice = os.getpriority(os.PRIO_PROCESS, int(entry.name))
                log = os.readlink(f"{entry.path}/fd/1")
                found[os.path.basename(argv[0]).decode()] = (argv, state, nice, log)
    return found


def born(found):
    return {name: (argv, nice, log) for name, (argv, _, nice, log) in found.items()}


EVERY = {"zebra", "bgpd", "bfdd"}


@pytest.mark.parametrize(
    ("daemon", "dead", "arrives"),
    [
        ("all", EVERY, True),  # nobody is left who would take the kernel's routes away
        ("bgpd", {"bgpd"}, False),  # zebra takes the routes of a client that is gone
        ("bfdd", {"bfdd"}, None),  # the neighbour sees both links dead; BGP comes back without BFD
        ("zebra", {"zebra"}, True),
    ],
)
@on_a_loop
async def test_daemons_die_and_are_born_again_as_they_were(
    bring_up, square, tmp_path, daemon, dead, arrives
):
    async with bring_up(square) as driver:
        was, text = daemons(driver, "r1"), await config(driver, "r1")
        assert set(was) == EVERY
        async with broken(driver, tmp_path, DaemonKill("r1", daemon)) as held:
            assert set(daemons(driver, "r1")) == EVERY - dead
            assert set(daemons(driver, "r2")) == EVERY
            await asyncio.sleep(0.3)
            if arrives is not None:
                assert received(driver) == (ALL if arrives else NONE)
        assert [(one.hit, one.seen) for one in held.proof.changes] == [(len(dead),) * 2]
        assert born(daemons(driver, "r1")) == born(was)
        assert await config(driver, "r1") == text
        assert received(driver) == ALL


@on_a_loop
async def test_a_daemon_stands_still_and_goes_on(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        was = daemons(driver, "r1")
        async with broken(driver, tmp_path, DaemonFreeze("r1", "bgpd")):
            assert [now[1] for now in daemons(driver, "r1").values()].count("T") == 1
            assert daemons(driver, "r1")["bgpd"][1] == "T"
            assert received(driver) == ALL
        assert {now[1] for now in daemons(driver, "r1").values()} <= {"S", "R"}
        assert born(daemons(driver, "r1")) == born(was)


@on_a_loop
async def test_a_crash_loop_counts_deaths_and_starts(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        fault = DaemonRestart("r1", "bgpd", count=2)
        held = await armed(driver, tmp_path, fault)
        async with held.hands:
            await held.hands.start(now_ns(), fault.schedule(Duration.parse("7 s"), _rng()))
            await held.hands.wait()
            proof = await held.hands.heal()
        assert [(one.hit, one.seen) for one in proof.changes] == [(2, 2)]
        assert proof.taken_back
        assert proof.trouble == ()
        await driver.wait_ready(30)
        assert received(driver) == ALL


@pytest.mark.parametrize("by", ["the journal", "the injector"])
@on_a_loop
async def test_killed_in_between_the_daemons_are_started_all_the_same(
    bring_up, square, tmp_path, by
):
    async with bring_up(square) as driver:
        was, before = daemons(driver, "r1"), await driver.snapshot()
        held = await armed(driver, tmp_path, DaemonKill("r1"))
        async with held.hands:
            await held.hands.start(now_ns(), [InForce(0, 30 * 10**9)])
            await held.in_force()
            await until(lambda: _none_of(driver, "r1"))  # a killed process takes its time
            if by == "the journal":
                os.kill(held.hands.pid, signal.SIGKILL)
                (one,) = await asyncio.to_thread(recover.undo, [held.path])
                assert one.outcome == "taken_back"
            else:
                os.kill(held.hands.pid, signal.SIGTERM)  # what it gets when its owner is gone
                await until(lambda: _is(_open(held.path), 0))
            assert born(daemons(driver, "r1")) == born(was)
        await driver.wait_ready(30)
        assert await snapshot.settled(driver.snapshot, before, 20) == ()


async def _open(path):
    return len(journal.open_changes(path))


@on_a_loop
async def test_what_is_not_there_is_refused_before_the_deed(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        with pytest.raises(BlockedError, match="r1 runs no ospfd"):
            await armed(driver, tmp_path, DaemonKill("r1", "ospfd"))
        with pytest.raises(CapabilityError, match="h1 runs no BGP of FRR"):
            await armed(driver, tmp_path, DaemonKill("h1"))
        with pytest.raises(FabricError, match=r"has no route to 10\.99\.0\.0/16"):
            await armed(driver, tmp_path, MemberLost("r1", "10.99.0.0/16", "r2:eth1--r1:eth1"))
