"""A small fabric of FRR: h1 -- r1 == two links == r2 -- h2."""

from chaos.fabric import Fabric, Link, Node, Port

SQUARE_CONF = """frr defaults datacenter
hostname {name}
interface eth1
 no ipv6 nd suppress-ra
interface eth2
 no ipv6 nd suppress-ra
interface eth3
 ip address 10.7.{number}.1/24
bfd
 profile fast
  transmit-interval 100
  receive-interval 100
 exit
exit
router bgp 6500{number}
 bgp router-id 10.7.255.{number}
 no bgp ebgp-requires-policy
 neighbor fab peer-group
 neighbor fab remote-as external
 neighbor fab timers 1 3
 neighbor fab timers connect 1
 neighbor fab bfd
 neighbor fab bfd profile fast
 neighbor eth1 interface peer-group fab
 neighbor eth2 interface peer-group fab
 address-family ipv4 unicast
  redistribute connected
  neighbor fab activate
 exit-address-family
exit
"""


def fabric(folder):
    """BGP unnumbered and BFD, each host behind one router; its files are put into the folder."""
    nodes = {}
    for number in (1, 2):
        name = f"r{number}"
        (folder / f"{name}.conf").write_text(SQUARE_CONF.format(name=name, number=number))
        (folder / "daemons").write_text("bgpd=yes\nbfdd=yes\nstaticd=no\n")
        binds = [f"{name}.conf:/etc/frr/frr.conf", "daemons:/etc/frr/daemons"]
        nodes[name] = Node(name, role="router", runs="frr", settings={"binds": binds})
        lines = [
            f"ip addr add 10.7.{number}.2/24 dev eth1",
            f"ip route add default via 10.7.{number}.1",
        ]
        nodes[f"h{number}"] = Node(f"h{number}", settings={"exec": lines})
    links = tuple(
        Link(Port(*a.split(":")), Port(*b.split(":")))
        for a, b in (
            ("r1:eth1", "r2:eth1"),
            ("r1:eth2", "r2:eth2"),
            ("h1:eth1", "r1:eth3"),
            ("h2:eth1", "r2:eth3"),
        )
    )
    return Fabric("square", nodes, links, source=str(folder / "square.clab.yml"))
