"""Each shipped fabric, deployed as it is by the plain binary on the image that we build."""

import time

import pytest

from chaos.shipped import fabric_names, fabric_path
from chaos.topology import load

pytestmark = pytest.mark.lab
DEADLINE_S = 60.0


def until(what):
    """Wait until `what()` lists nothing that is wanting."""
    end = time.monotonic() + DEADLINE_S
    while wanting := what():
        assert time.monotonic() < end, f"still wanting after {DEADLINE_S:g} s: {wanting[:5]}"
        time.sleep(0.2)


def addresses(lab, host):
    """The IPv4 addresses of a host on its ports, by port."""
    told = lab.run(host, "ip", "-br", "-4", "address")
    lines = [line.split() for line in told.splitlines()]
    return {
        port.partition("@")[0]: at.partition("/")[0] for port, _, at, *_ in lines if port != "lo"
    }


def unanswered(lab, hosts):
    """Every pair of addresses on the same port of two hosts between which no ping comes back."""
    at = {host: addresses(lab, host) for host in hosts}
    found = []
    for source in hosts:
        pairs = [
            f"{at[source][port]} {target}"
            for other in hosts
            for port, target in at[other].items()
            if other != source
        ]
        script = "while read a b; do ping -q -c1 -W1 -I $a $b >/dev/null || echo $a $b; done"
        told = lab.run(source, "sh", "-c", f"{script} <<END\n" + "\n".join(pairs) + "\nEND")
        found += told.splitlines()
    return found


def unrouted(lab, fabric, switches, prefixes):
    """What FRR still lacks: sessions, BFD, and two ways at every leaf to every host elsewhere."""
    found = []
    for name in switches:
        try:
            peers = lab.tell(name, "show bgp ipv4 unicast summary").get("peers", {})
        except AssertionError as error:  # daemons are started one after the other
            found.append(f"{name}: {error}")
            continue
        if not peers:  # bgpd answers before it has read of its neighbours
            found.append(f"{name}: no peer")
        wanted = sum(name in one.nodes and {*one.nodes} <= {*switches} for one in fabric.links)
        up = [one for one in peers.values() if one["state"] == "Established"]
        bfd = [one for one in lab.tell(name, "show bfd peers") if one["status"] == "up"]
        found += [f"{name}: {len(up)} of {wanted} sessions"] if len(up) != wanted else []
        found += [f"{name}: {len(bfd)} of {wanted} BFD"] if len(bfd) != wanted else []
        if name.startswith("leaf"):
            routes = lab.tell(name, "show ip route")
            for prefix in prefixes:
                hops = routes.get(prefix, [{"nexthops": []}])[0]["nexthops"]
                ways = [hop for hop in hops if hop.get("fib")]
                local = any(hop.get("directlyConnected") for hop in hops)
                if not local and len(ways) != 2:
                    found.append(f"{name}: {len(ways)} ways to {prefix}")
    return found


def unset(lab, node):
    """Settings of the topology that a node's kernel does not have."""
    wanted = node.settings.get("sysctls", {})
    paths = ["/proc/sys/" + name.replace(".", "/") for name in wanted]
    told = lab.run(node.name, "cat", *paths).split() if wanted else []
    has = dict(zip(wanted, told, strict=True))
    return [f"{node.name}: {key} is {has[key]}" for key in wanted if has[key] != str(wanted[key])]


@pytest.mark.parametrize("name", fabric_names())
def test_a_shipped_fabric_deploys_converges_and_leaves_nothing(name, deployed, lab_runtime):
    before = lab_runtime.footprint()
    fabric = load(fabric_path(name))
    lab = deployed(fabric_path(name))

    assert lab.nodes() == sorted(fabric.nodes)
    hosts = [node.name for node in fabric.nodes.values() if node.role == "host"]
    frr = [node.name for node in fabric.nodes.values() if node.runs == "frr"]
    prefixes = [f"10.0.{number}.0/31" for number in range(1, len(hosts) + 1)]
    if frr:
        until(lambda: unrouted(lab, fabric, frr, prefixes))
    until(lambda: unanswered(lab, hosts))

    assert [line for node in fabric.nodes.values() for line in unset(lab, node)] == []

    assert lab.left() != []
    lab.destroy()
    assert lab.left() == []
    if lab_runtime.own:  # on a docker of others, others come and go
        assert lab_runtime.footprint() == before
