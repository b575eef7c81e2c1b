"""The path that the kernels say is the path that packets take."""

import socket

import pytest
from pyroute2 import IPRoute

from chaos.errors import FabricError
from chaos.fabric import Port
from chaos.netlink import Netlink, NetlinkError
from chaos.path import Tracer, lookup
from chaos.timeline import Moment, Windows, now_ns
from chaos.units import Duration
from probes.path import Path

pytestmark = pytest.mark.netns
SOURCE_PORTS = range(49152, 49152 + 64)
LEGS = (Port("r1", "eth2"), Port("r1", "eth3"))
PACKETS = 50


@pytest.fixture
def tracer(two_paths):
    with Tracer(two_paths.fabric, two_paths.namespaces) as tracer:
        yield tracer


def send(two_paths, sport, packets=PACKETS):
    def work():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("", sport))
            for _ in range(packets):
                sock.sendto(b"x", (two_paths.addresses["h2"], 5201))

    two_paths.inside("h1", work)


def taken_leg(two_paths, tracer, sport):
    """The leg on which r1's transmit counter grew by what was sent."""
    before = tracer.port_counters(LEGS)
    send(two_paths, sport)
    after = tracer.port_counters(LEGS)
    grown = {leg: after[leg].tx_packets - before[leg].tx_packets for leg in LEGS}
    used = [leg for leg in LEGS if grown[leg] >= PACKETS]
    assert len(used) == 1, grown
    return used[0]


def predicted_leg(two_paths, tracer, sport):
    a, b = two_paths.addresses["h1"], two_paths.addresses["h2"]
    crossings = tracer.crossings("h1", a, b, "udp", sport, 5201)
    assert [crossing.source for crossing in crossings] == ["h1", "r1", "r2"]
    assert crossings[-1].target == "h2"
    return crossings[1].link.port_of("r1")


def test_prediction_equals_interface_counters_for_64_of_64_source_ports(two_paths, tracer):
    taken = {sport: taken_leg(two_paths, tracer, sport) for sport in SOURCE_PORTS}
    predicted = {sport: predicted_leg(two_paths, tracer, sport) for sport in SOURCE_PORTS}
    assert predicted == taken
    # else one path would be right by luck: 64 fair coins all alike has odds of 1 in 2^63
    assert set(taken.values()) == set(LEGS)


def test_trap_a_library_that_ignores_ports_gives_one_answer_for_all(two_paths, tracer):
    """Trap T3: pyroute2's look-up takes the ports, drops them, and reports no error."""
    with IPRoute(netns=f"{two_paths.prefix}r1") as ipr:
        eth1 = ipr.link_lookup(ifname="eth1")[0]
        answers = set()
        for sport in SOURCE_PORTS:
            (route,) = ipr.route(
                "get",
                dst=two_paths.addresses["h2"],
                src=two_paths.addresses["h1"],
                iif=eth1,
                ip_proto=17,
                sport=sport,
                dport=5201,
            )
            answers.add(route.get("oif"))
    ours = {predicted_leg(two_paths, tracer, sport) for sport in SOURCE_PORTS}
    assert len(answers) == 1, "this pyroute2 passes ports on; the hand-packed look-up may go"
    assert len(ours) == 2


def test_a_dead_leg_moves_every_port_to_the_other(two_paths, tracer):
    two_paths.ip("r1", "link set eth2 down")
    legs = {predicted_leg(two_paths, tracer, sport) for sport in SOURCE_PORTS}
    assert legs == {Port("r1", "eth3")}


def test_no_route_is_a_sentence_that_names_the_node_and_the_way_so_far(two_paths, tracer):
    two_paths.ip("r2", "route add unreachable 10.9.8.2/32")
    with pytest.raises(FabricError) as caught:
        tracer.crossings("h1", "10.9.1.2", "10.9.8.2", "udp", 49152, 5201)
    sentence = "r2 has no way for 10.9.1.2:49152 -> 10.9.8.2:5201 udp (no route, or one of kind"
    assert str(caught.value).startswith(sentence)
    assert "it came by h1->r1 (h1:eth1--r1:eth1), r1->r2 " in str(caught.value)


def test_a_forwarding_loop_is_a_sentence(two_paths, tracer):
    two_paths.ip("r2", "route add 10.9.8.2/32 via 10.9.12.1")
    with pytest.raises(FabricError, match=r"10\.9\.8\.2:5201 udp loops; it came by h1->r1"):
        tracer.crossings("h1", "10.9.1.2", "10.9.8.2", "udp", 49152, 5201)


def test_leaving_the_fabric_is_a_sentence(two_paths, tracer):
    two_paths.ip("h1", "link add stray type bridge")
    two_paths.ip("h1", "link set stray up")
    two_paths.ip("h1", "route add 10.9.8.2/32 dev stray")
    with pytest.raises(FabricError, match="leaves h1 by stray, which is no link of the fabric"):
        tracer.crossings("h1", "10.9.1.2", "10.9.8.2", "udp", 49152, 5201)


def test_an_interface_made_after_the_tracer_is_found(two_paths, tracer):
    tracer.port_counters(LEGS)
    two_paths.ip("r1", "link del eth2")
    index = "link add eth2 index 1900 netns {0}r1 type veth peer name eth2 index 1901 netns {0}r2"
    two_paths.ip("r1", index.format(two_paths.prefix))
    for node, address in (("r1", "10.9.12.1/24"), ("r2", "10.9.12.2/24")):
        two_paths.ip(node, f"address add {address} dev eth2")
        two_paths.ip(node, "link set eth2 up")
    two_paths.ip("r1", "route replace 10.9.8.0/24 via 10.9.12.2 dev eth2")
    assert predicted_leg(two_paths, tracer, 49152) == Port("r1", "eth2")
    assert tracer.port_counters(LEGS)[Port("r1", "eth2")].rx_packets < 50


def test_policy_route_by_incoming_interface_is_followed(two_paths, tracer):
    """Only with the packet's own incoming interface does r1's rule apply."""
    two_paths.ip("r1", "route add 10.9.8.0/24 via 10.9.13.2 table 77")
    two_paths.ip("r1", "rule add iif eth1 table 77 priority 100")
    legs = {predicted_leg(two_paths, tracer, sport) for sport in SOURCE_PORTS}
    assert legs == {Port("r1", "eth3")}


def test_lookup_over_ipv6_gateway_and_by_namespace_path(two_paths):
    """RFC 5549: an IPv4 route through an IPv6 neighbour, as BGP unnumbered makes them."""
    two_paths.ip("r1", "route replace 10.9.8.0/24 via inet6 fe80::1 dev eth2")
    hop = lookup(two_paths.namespaces["r1"], "10.9.8.2", "10.9.1.2", sport=1, iif=1001)
    assert (hop.ifindex, hop.gateway, hop.local) == (1002, "fe80::1", False)


def test_lookup_of_own_address_is_local_and_of_nowhere_is_an_error(two_paths):
    warm = two_paths.inside("r2", Netlink.open)
    assert lookup(warm, "10.9.8.1").local
    with pytest.raises(NetlinkError, match="ENETUNREACH"):
        lookup(warm, "203.0.113.1")
    warm.close()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("unreachable", "no route, or one of kind unreachable"),
        ("blackhole", "a blackhole route, or an address that cannot be"),
        ("prohibit", "a route of kind prohibit"),
    ],
)
def test_a_route_that_rejects_is_no_way_and_says_why(two_paths, tracer, kind, why):
    two_paths.ip("r1", f"route add {kind} 10.9.8.2/32")
    with pytest.raises(
        FabricError, match=f"^r1 has no way for .* udp \\({why}\\); it came by h1->r1"
    ):
        tracer.crossings("h1", "10.9.1.2", "10.9.8.2", "udp", 49152, 5201)
    two_paths.ip("r1", f"-6 route add {kind} fd99::/64")
    with pytest.raises(NetlinkError):
        lookup(two_paths.namespaces["r1"], "fd99::1")


# ---- the probe ----------------------------------------------------------------------------------


def legs(look):
    """Ports that the path of a look leaves by, at r1."""
    return [link for link, source, _ in look["hops"] if source == "r1"]


def test_the_probe_tells_when_the_path_moves_breaks_and_is_back(two_paths, start):
    probe = Path("h1", "h2", every=Duration(20_000_000))
    (program,) = probe.programs(two_paths.fabric, two_paths.addresses)
    looker = start(program, two_paths.namespaces)
    first = looker.wait_for("changed")
    leg = legs(first)[0].split("--")[0].removeprefix("r1:")
    calm = now_ns()
    two_paths.ip("r1", f"link set {leg} down")
    event = Moment(calm, now_ns())
    looker.wait_for(lambda r: r["ev"] == "changed" and r["n"] > first["n"])
    two_paths.ip("r1", "route add unreachable 10.9.8.2/32")
    looker.wait_for(lambda r: r["ev"] == "changed" and r["error"] != "")
    two_paths.ip("r1", "route del unreachable 10.9.8.2/32")
    before = now_ns()
    two_paths.ip("r1", f"link set {leg} up")
    route = "nexthop via 10.9.12.2 dev eth2 nexthop via 10.9.13.2 dev eth3"
    two_paths.ip("r1", f"route replace 10.9.8.0/24 {route}")
    heal = Moment(before, now_ns())
    looker.wait_for(lambda r: r["ev"] == "path" and r["t"] > heal.latest_ns)
    readings = probe.read({"looker": looker.stop()})
    assert readings.trouble == ()
    names = [e.name for e in readings.events]
    assert names[:2] == ["path.changed", "path.lost"]
    moved, lost = readings.events[:2]
    assert f"r1:{leg}--r2:{leg}" in moved.facts["before"]
    assert f"r1:{leg}--r2:{leg}" not in moved.facts["after"]
    assert lost.facts["after"].startswith("r1 has no way for 10.9.1.2:49152 -> 10.9.8.2:5201")
    windows = Windows((0, calm), event, heal, now_ns())
    found = {m.name: m for m in probe.measures(readings, windows)}
    assert found["path_changes_count"].value >= 3
    assert found["path_absent_ms"].low <= found["path_absent_ms"].value
    assert found["path_reverted_ms"].value is not None
    assert not found["path_reverted_ms"].censored


def test_the_probe_counts_the_packets_on_its_path(two_paths, start):
    probe = Path("h1", "h2", every=Duration(20_000_000))
    (program,) = probe.programs(two_paths.fabric, two_paths.addresses)
    looker = start(program, two_paths.namespaces)
    first = looker.wait_for("changed")
    send(two_paths, 49152, 400)
    looker.wait_count("path", 2)
    looks = [r for r in looker.stop() if r["ev"] == "path"]
    port = legs(first)[0].split("--")[0]
    assert sum(look["packets"][port] for look in looks) >= 400
    (series,) = [s for s in probe.read({"looker": looker.records[:-1]}).series if s.element == port]
    assert series.name == "port_transmit_pps"
