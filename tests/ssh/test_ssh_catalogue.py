"""Every class of fault on machines over real SSH: in force there, acted, healed, without a trace.

Two hosts and a router between them, each a machine of its own. What a machine over SSH cannot do is
refused with the reason (docs/faults.md); the last test holds the list to the catalogue.
"""

import asyncio
import random
import shlex
from ipaddress import IPv4Address

import pytest

from chaos import catalogue
from chaos.drivers.ssh.places import refusal
from chaos.registry import FAULTS, load
from chaos.roce import AETH, IPv4, Packet, bth
from chaos.units import Duration
from tests.ssh.attached import fault, on, put

pytestmark = [pytest.mark.ssh, pytest.mark.slow]

load()
STORM = Duration.parse("1500 ms")
#: What to break, and whether pings from h1 to h2 must meet it (else it acts by itself).
LINES = {
    "link_down link=h1--r1": False,
    "link_down link=h1--r1 mode=admin end=h1": False,
    "link_down link=h1--r1 mode=silent end=h1": True,
    "link_flap link=h1--r1 frequency=4Hz count=3": False,
    "packet_loss link=h1--r1 share=50% end=h1": True,
    "packet_fault link=h1--r1 end=h1 when=first=3": True,
    "packet_fault link=h1--r1 end=h1 when='every=5 offset=2'": True,
    "packet_fault link=h1--r1 end=h1 when='random=20% seed=3'": True,
    "packet_fault link=h1--r1 end=h1 select=family=4 then=ce": True,
    "packet_fault link=h1--r1 end=h1 select=family=4 then=dscp=af31": True,
    "packet_fault link=h1--r1 end=h1 select=family=4 then=corrupt": True,
    "packet_fault link=h1--r1 end=h1 select=family=4 then='delay=5ms jitter=1ms'": True,
    "packet_fault link=h1--r1 end=h1 select=family=4 when=every=10 then=reorder=2": True,
    "packet_fault link=h1--r1 end=h1 select=family=4 then=rate=100kbit/s": True,
    "packet_fault link=h1--r1 end=h1 then=corrupt=silent": True,
    "packet_fault link=h1--r1 end=h1 then=forge=remote_access_error": True,
    "packet_fault link=h1--r1 end=h1 then='forge=cnp qp=17'": True,
    "node_down node=h1": False,
    "nic_kill node=h1": False,
    "mtu_mismatch link=h1--r1 end=h1 mtu=1000B": True,
    "link_slow link=h1--r1 rate=200kbit/s end=h1 burst=16KiB": True,
    "tiny_buffers link=h1--r1 rate=100kbit/s end=h1": True,
    "dirty_optic link=h1--r1 ber=1e-4 end=h1": True,
    "cpu_load node=h1": False,
    "nic_load node=h1 to=h2 rate=10Mbit/s": False,
    "acl_drop node=r1 source=198.19.1.2 destination=198.19.2.2 protocol=udp": False,
    "bfd_down link=h1--r1 end=h1": False,
    "route_blackhole node=r1 prefix=198.19.2.0/24": False,
    "forwarding_off node=r1": False,
}
#: Data and acknowledgements of RoCEv2 from h1 to h2, as UDP carries them: 50 of each.
ROCE = """
import socket, sys, time
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for turn in range(50):
    for payload in sys.argv[1:]:
        out.sendto(bytes.fromhex(payload), ("198.19.2.2", 4791))
        time.sleep(0.01)
"""
_ENDS = IPv4(IPv4Address("198.19.1.2"), IPv4Address("198.19.2.2"))
PAYLOADS = [
    packet.write()[14 + 20 + 8 :].hex()
    for packet in (
        Packet(_ENDS, bth("rc_send_only", 17, 1), (), bytes(64)),
        Packet(_ENDS, bth("rc_acknowledge", 17, 1), (AETH(0, 1),)),
    )
]
#: Faults that need what these machines have not: FRR, several legs, ranks, rails, planes.
ELSEWHERE = {
    "bgp_down": "test_frr_over_ssh.py",
    "bgp_reset": "needs a session of FRR",
    "daemon_freeze": "refused over SSH",
    "daemon_kill": "refused over SSH",
    "daemon_restart": "refused over SSH",
    "forwarding_loop": "needs two routers",
    "hash_polarised": "test_ssh_control.py",
    "member_lost": "needs equal legs",
    "node_stop": "refused over SSH",
    "pfc_storm": "test_ssh_hardware.py",
    "plane_down": "needs planes",
    "prefix_churn": "needs a session of FRR",
    "rail_down": "test_ssh_rails.py",
    "rank_kill": "test_remote_probes.py",
    "rank_restart": "a rank, as rank_kill; its parent is told by the machine's own injector",
    "rank_stop": "test_remote_probes.py",
    "rendezvous_loss": "a drop at the ports of a node, as acl_drop",
    "route_detour": "needs a next hop that a route or a router has told",
    "route_withdraw": "needs a session of FRR",
    "straggler": "a rank, as rank_stop",
    "wires_swapped": "refused over SSH",
    "wrong_value": "a rank, as rank_stop",
}


def sent(one, line):
    """The command whose packets meet it: pings, of a size that it minds; or RoCE."""
    if "corrupt=silent" in line or "forge=" in line:
        return ("python3", "-c", ROCE, *PAYLOADS)
    large = one.name in ("mtu_mismatch", "link_slow", "tiny_buffers")
    size = ("-s", "1200") if large else ()
    return ("ping", "-q", "-i", "0.01", "-c", "110", "-W", "1", *size, "198.19.2.2")


@pytest.mark.parametrize(("line", "met"), LINES.items(), ids=LINES)
def test_it_acts_on_machines_and_leaves_no_trace(three, home, line, met):
    one = fault(*shlex.split(line))

    async def work(driver):
        changes = one.changes(driver.fabric)
        assert [why for change in changes if (why := refusal(change, driver.fabric))] == []

        async def between(hands):
            await asyncio.to_thread(three["h1"].run, *sent(one, line), check=False)

        spans = one.schedule(STORM, random.Random(1))
        return await put(driver, home, changes, spans, between)

    proof = on(three, home, work)

    assert proof.in_force, proof.changes
    assert proof.trouble == ()
    assert all(one.taken_back for one in proof.changes)
    if met:
        assert sum(one.hit or 0 for one in proof.changes) > 0, proof.changes


def test_no_fault_of_the_catalogue_is_forgotten():
    ours = {name for name, cls in FAULTS.items() if cls.__module__.startswith("faults.")}
    tried = {line.split()[0] for line in LINES}

    assert tried | ELSEWHERE.keys() == ours
    for name, why in ELSEWHERE.items():
        reasons = [catalogue.reach(one)["ssh"] for one in catalogue.examples(FAULTS[name])]
        assert all(reasons) == (why == "refused over SSH"), name
