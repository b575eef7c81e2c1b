"""Tables of network operating systems: every change on every platform, and what they answer."""

import shlex
import subprocess
from pathlib import Path

import pytest

from chaos.change import BgpNeighbour, LinkState, NodePower, PacketDrop, Place, ProcessSignal
from chaos.errors import BlockedError, CapabilityError, FabricError, SpecError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.nos import (
    PLATFORMS,
    at_opposite_end,
    cumulus,
    deadman,
    eos,
    frr,
    platform,
    refusal,
    sonic,
    srlinux,
)
from chaos.nos.match import Match, parse

DATA = Path(__file__).resolve().parents[1] / "data" / "nos"
TABLE = "railbreak_packet_loss_a_long_enough_name_of_a_leaf_Ethernet2_0000abcd"
PORTS = {
    "frr": "eth2",
    "sonic": "Ethernet0",
    "eos": "Ethernet2",
    "cumulus": "swp1",
    "srlinux": "ethernet-1/1",
}


def said(name):
    return (DATA / f"{name}.txt").read_text()


def link(name):
    return LinkState(Place("leaf1", PORTS[name]))


def drop(name, match="udp dport 4791", **words):
    return PacketDrop(Place("leaf1", PORTS[name]), TABLE, match, **words)


def shut(neighbor="10.1.1.0"):
    return BgpNeighbour(Place("leaf1"), neighbor)


# ---- commands: as the vendors document them ------------------------------------------------------


def test_a_port_down_and_up_on_every_platform():
    """Do and undo, word for word."""
    assert {name: (platform(name).render(link(name), ()).do, platform(name).render(
        link(name), ()).undo) for name in PORTS} == {
        "frr": (("ip link set dev eth2 down",), ("ip link set dev eth2 up",)),
        "sonic": (
            ("sudo config interface shutdown Ethernet0",),
            ("sudo config interface startup Ethernet0",),
        ),
        "eos": (("interface Ethernet2", "shutdown"), ("interface Ethernet2", "no shutdown")),
        "cumulus": (
            ("nv set interface swp1 link state down",),
            ("nv set interface swp1 link state up",),
        ),
        "srlinux": (
            ("set / interface ethernet-1/1 admin-state disable",),
            ("set / interface ethernet-1/1 admin-state enable",),
        ),
    }  # fmt: skip


def test_a_bgp_neighbour_down_and_up_on_every_platform():
    """With the AS number that the switch itself told."""
    told = said("frr/bgp_summary")
    rendered = {
        "frr": platform("frr").render(shut("eth1"), (told,)),
        "sonic": platform("sonic").render(shut("10.7.12.2"), (told,)),
        "eos": platform("eos").render(shut(), (said("eos/bgp_section"),)),
        "cumulus": platform("cumulus").render(shut("eth1"), ("{}\n", told)),
        "srlinux": platform("srlinux").render(shut(), (said("srlinux/admin_enable"),)),
    }
    configure = "vtysh -c 'configure terminal' -c 'router bgp 65001' -c "
    at = "network-instance default protocols bgp neighbor 10.1.1.0"
    assert {name: (one.do, one.undo) for name, one in rendered.items()} == {
        "frr": (
            (f"{configure}'neighbor eth1 shutdown'",),
            (f"{configure}'no neighbor eth1 shutdown'",),
        ),
        "sonic": (
            ("sudo config bgp shutdown neighbor 10.7.12.2",),
            ("sudo config bgp startup neighbor 10.7.12.2",),
        ),
        "eos": (
            ("router bgp 65001", "neighbor 10.1.1.0 shutdown"),
            ("router bgp 65001", "no neighbor 10.1.1.0 shutdown"),
        ),
        "cumulus": (
            ("nv set vrf default router bgp neighbor eth1 shutdown on",),
            ("nv set vrf default router bgp neighbor eth1 shutdown off",),
        ),
        "srlinux": (
            (f"set / {at} admin-state disable",),
            (f"set / {at} admin-state enable",),
        ),
    }


def test_eos_drops_roce_of_both_families_and_of_one_flow():
    """Per-entry counters, everything else permitted; undo unbinds before it removes."""
    whole = platform("eos").render(drop("eos"), ())
    assert whole.do == (
        "ip access-list railbreak_0000abcd", "counters per-entry", "10 deny udp any any eq 4791",
        "20 permit ip any any", "exit",
        "ipv6 access-list railbreak_0000abcd", "counters per-entry", "10 deny udp any any eq 4791",
        "20 permit ipv6 any any", "exit",
        "interface Ethernet2", "ip access-group railbreak_0000abcd in",
        "ipv6 access-group railbreak_0000abcd in",
    )  # fmt: skip
    assert whole.undo == (
        "interface Ethernet2", "no ip access-group railbreak_0000abcd in",
        "no ipv6 access-group railbreak_0000abcd in", "exit",
        "no ip access-list railbreak_0000abcd", "no ipv6 access-list railbreak_0000abcd",
    )  # fmt: skip
    flow = "ip saddr 10.2.0.9 ip daddr 10.3.0.0/24 ip dscp 26 udp sport 49152 udp dport 4791"
    rule = platform("eos").render(drop("eos", flow), ()).do[2]
    assert rule == "10 deny udp host 10.2.0.9 eq 49152 10.3.0.0/24 eq 4791 dscp 26"


def test_sonic_drops_roce_by_a_table_of_our_own():
    """A table per family bound at ingress, one rule of the highest priority."""
    found = platform("sonic").render(drop("sonic", "ip saddr 10.2.0.9 udp dport 4791"), ())
    rule = (
        '{"ACL_RULE": {"railbreak_0000abcd_v4|RULE_1": {"PRIORITY": "9999", "PACKET_ACTION": '
        '"DROP", "IP_PROTOCOL": "17", "SRC_IP": "10.2.0.9/32", "L4_DST_PORT": "4791"}}}'
    )
    assert found.do == (
        "sudo config acl add table railbreak_0000abcd_v4 L3 -p Ethernet0 -s ingress",
        f"sudo sonic-cfggen -a '{rule}' --write-to-db",
    )
    assert found.undo == (
        "sudo sonic-db-cli CONFIG_DB DEL 'ACL_RULE|railbreak_0000abcd_v4|RULE_1'",
        "sudo config acl remove table railbreak_0000abcd_v4",
    )
    six = platform("sonic").render(drop("sonic"), ()).do
    assert "L3V6" in six[2]
    assert '"NEXT_HEADER": "17"' in six[3]


def test_cumulus_drops_roce_by_an_inbound_acl():
    """The words of release 5.9 and later: `match ip udp dest-port`."""
    found = platform("cumulus").render(drop("cumulus", "ip daddr 10.3.0.7 udp dport 4791"), ())
    acl = "nv set acl railbreak_0000abcd_v4"
    assert found.do == (
        f"{acl} type ipv4",
        f"{acl} rule 10 match ip protocol udp",
        f"{acl} rule 10 match ip dest-ip 10.3.0.7/32",
        f"{acl} rule 10 match ip udp dest-port 4791",
        f"{acl} rule 10 action deny",
        "nv set interface swp1 acl railbreak_0000abcd_v4 inbound",
    )
    assert found.undo == (
        "nv unset interface swp1 acl railbreak_0000abcd_v4",
        "nv unset acl railbreak_0000abcd_v4",
    )


def test_srlinux_drops_roce_by_an_acl_filter_on_the_subinterface():
    """Entry 10 drops, the last entry accepts; statistics per entry."""
    found = platform("srlinux").render(drop("srlinux", "ip saddr 10.2.0.9 udp dport 4791"), ())
    acl = f"set / acl acl-filter {TABLE} type ipv4"
    at = "acl interface ethernet-1/1.0"
    assert found.do == (
        f"{acl} statistics-per-entry true",
        f"{acl} entry 10 match ipv4 protocol udp",
        f"{acl} entry 10 match ipv4 source-ip prefix 10.2.0.9/32",
        f"{acl} entry 10 match transport destination-port value 4791",
        f"{acl} entry 10 action drop",
        f"{acl} entry 65535 action accept",
        f"set / {at} interface-ref interface ethernet-1/1",
        f"set / {at} interface-ref subinterface 0",
        f"set / {at} input acl-filter {TABLE} type ipv4",
    )
    assert found.undo == (
        f"delete / {at} input acl-filter {TABLE} type ipv4",
        f"delete / acl acl-filter {TABLE} type ipv4",
    )


def test_frr_drops_by_the_same_ruleset_as_a_host():
    """On one line, and with a share, which nftables can and an access list cannot."""
    change = drop("frr", millionths=20_000, seed=3)
    (line,) = platform("frr").render(change, ()).do
    words = shlex.split(line)
    assert words[0] == "nft"
    plain = [text.replace(";", " ").split() for text in (words[1], change.ruleset("eth2"))]
    assert plain[0] == plain[1]
    assert "\n" not in line
    assert "a line of a terminal" in refusal(platform("frr"), drop("frr", millionths=250_000))


def test_timed_commits_as_documented():
    """Stage, commit with a timer, reject."""
    one = platform("eos").confirmed
    assert one.stage("rb-1", ["a"]) == ("configure session rb-1", "a", "end")
    assert one.commit("rb-1", 3725) == "configure session rb-1 commit timer 01:02:05"
    assert one.reject("rb-1") == ("configure session rb-1 abort",)
    one = platform("cumulus").confirmed
    assert one.commit("rb-1", 90) == "nv config apply --confirm 90s -y"
    assert one.reject("rb-1") == ("nv config apply --confirm-no",)
    one = platform("srlinux").confirmed
    assert one.stage("rb-1", ["a"]) == ("enter candidate private name rb-1", "/", "a")
    assert one.commit("rb-1", 90) == "commit confirmed timeout 90"
    assert one.reject("rb-1")[0] == "/tools system configuration confirmed-reject"


# ---- readers: real and documented answers, in every state ----------------------------------------


def read(name, change, *answers, facts=()):
    return platform(name).render(change, facts).read(answers)


@pytest.mark.parametrize(
    ("name", "standing", "answer"),
    [
        ("frr", "gone", "frr/link"),
        ("frr", "in_force", "frr/link_down"),
        ("cumulus", "gone", "frr/link"),
        ("cumulus", "in_force", "frr/link_down"),
        ("sonic", "gone", "sonic/interfaces_status"),
        ("sonic", "in_force", "sonic/interfaces_status_down"),
        ("eos", "gone", "eos/interface_connected"),
        ("eos", "in_force", "eos/interface_disabled"),
        ("srlinux", "gone", "srlinux/admin_enable"),
        ("srlinux", "in_force", "srlinux/admin_disable"),
    ],
)
def test_ports_are_read_from_answers(name, standing, answer):
    """Operationally down (SONiC's Ethernet0 is, without us) is not administratively down."""
    assert read(name, link(name), said(answer)) == standing


@pytest.mark.parametrize("name", list(PORTS))
@pytest.mark.parametrize("answer", ["", "% Invalid input", "command not found", "{}"])
def test_what_does_not_say_is_unknown_and_never_gone(name, answer):
    """Absence is read from a successful answer, never from an error."""
    assert read(name, link(name), answer) == "unknown"


@pytest.mark.parametrize(
    ("name", "neighbor", "facts", "gone", "in_force"),
    [
        ("frr", "eth1", ("frr/bgp_summary",), "frr/bgp_summary", "frr/bgp_summary_shut"),
        ("sonic", "10.7.12.2", ("frr/bgp_summary",), "frr/bgp_summary", None),
        ("eos", "10.1.1.0", ("eos/bgp_section",), "eos/bgp_section", "eos/bgp_section_shut"),
        ("eos", "Et3", ("eos/bgp_section",), "eos/bgp_section", None),
        ("srlinux", "10.1.1.0", ("srlinux/admin_enable",), "srlinux/admin_enable",
         "srlinux/admin_disable"),
    ],
)  # fmt: skip
def test_neighbours_are_read_from_answers(name, neighbor, facts, gone, in_force):
    """Shut, or not; another neighbour's shutdown is not ours."""
    change, facts = shut(neighbor), tuple(map(said, facts))
    assert read(name, change, said(gone), facts=facts) == "gone"
    if in_force:
        assert read(name, change, said(in_force), facts=facts) == "in_force"


def test_a_neighbour_that_vanished_meanwhile_is_unknown():
    """Not gone: its shutdown may come back with it."""
    told = said("frr/bgp_summary")
    assert read("frr", shut("eth1"), told.replace('"eth1"', '"eth7"'), facts=(told,)) == "unknown"
    told = said("eos/bgp_section")
    assert read("eos", shut(), told.replace("10.1.1.0", "10.7.7.7"), facts=(told,)) == "unknown"


def test_a_neighbour_that_is_not_there_is_named_with_those_that_are():
    """For every platform that can say which it has."""
    told = said("frr/bgp_summary")
    for name, facts in (
        ("frr", (told,)),
        ("sonic", (told,)),
        ("cumulus", ("", told)),
        ("eos", (said("eos/bgp_section"),)),
    ):
        with pytest.raises(FabricError, match=r"no BGP neighbor 10\.9\.9\.9.*it has .*10\."):
            platform(name).render(shut("10.9.9.9"), facts)
    with pytest.raises(FabricError, match="is it configured"):
        platform("srlinux").render(shut(), ("",))


def test_access_lists_are_read_from_answers():
    """Bound, gone, and half: a list without its binding, or one family of two."""
    both = drop("eos")
    assert read("eos", both, said("eos/port_config_bound")) == "in_force"
    assert read("eos", both, said("eos/port_config")) == "gone"
    half = said("eos/port_config_bound").replace("ipv6 access-group", "! ")
    assert read("eos", both, half) == "partly"
    assert read("eos", both, "") == "unknown"

    ours = said("sonic/acl_rule_ours"), said("sonic/acl_table_ours")
    foreign = said("sonic/acl_rule"), said("sonic/acl_table")
    assert read("sonic", drop("sonic"), *ours) == "in_force"
    assert read("sonic", drop("sonic"), *foreign) == "gone"
    assert read("sonic", drop("sonic"), foreign[0], ours[1]) == "partly"
    inactive = ours[0].replace("17    Active", "17    N/A   ")
    assert read("sonic", drop("sonic"), inactive, ours[1]) == "partly"

    four = "ip saddr 10.0.0.1 udp dport 4791"
    assert read("cumulus", drop("cumulus", four), said("cumulus/config_commands_bound")) == (
        "in_force"
    )
    assert read("cumulus", drop("cumulus", four), said("cumulus/config_commands")) == "gone"
    half = said("cumulus/config_commands_bound").replace("nv set interface swp1 acl", "#")
    assert read("cumulus", drop("cumulus", four), half) == "partly"

    change = PacketDrop(Place("leaf1", "ethernet-1/1"), "railbreak_0000abcd", four)
    bound = said("srlinux/acl_bound")
    assert read("srlinux", change, bound) == "in_force"
    assert read("srlinux", change, said("srlinux/acl")) == "gone"
    assert read("srlinux", change, "") == "gone"  # no acl at all
    unbound = bound.replace("ethernet-1/1.0 {", "ethernet-1/9.0 {")
    assert read("srlinux", change, unbound) == "partly"

    mine = PacketDrop(Place("r1", "eth3"), "railbreak_acl_r1_0000abcd", four)
    assert read("frr", mine, said("frr/nft_tables")) == "in_force"
    assert read("frr", mine, said("frr/nft_tables_none")) == "gone"


def test_counters_are_read_from_answers():
    """Packets that the rule met; None where the switch does not say."""

    def count(name, change, *answers):
        return platform(name).render(change, ()).count(answers).hit

    four = "ip saddr 10.0.0.1 udp dport 4791"
    assert count("eos", drop("eos", four), said("eos/access_list_counted")) == 147
    never = said("eos/access_list_counted").replace(" [match 147 packets, 0:00:14 ago]", "")
    assert count("eos", drop("eos", four), never) == 0
    assert count("eos", drop("eos", four), said("eos/access_lists")) is None
    assert count("sonic", drop("sonic"), said("sonic/aclshow_ours")) == 42
    assert count("sonic", drop("sonic"), said("sonic/aclshow_all")) is None
    table = next(row for row in sonic.rows(said("sonic/aclshow_all")) if row["PRIO"] == "9998")
    assert (table["TABLE NAME"], table["PACKETS COUNT"]) == ("DATAACL", "201")
    assert count("cumulus", drop("cumulus", four), said("cumulus/acl_statistics")) == 57
    assert count("srlinux", drop("srlinux", four), said("srlinux/statistics")) == 23
    assert count("frr", drop("frr"), said("frr/nft_counters")) == 0
    assert count("eos", link("eos"), said("eos/interface_connected")) == 1  # link changes


@pytest.mark.parametrize(
    ("name", "answer", "waits"),
    [
        ("eos", "eos/sessions_pending", True),
        ("eos", "eos/sessions_pending_new", True),
        ("eos", "eos/sessions_none", False),
        ("cumulus", "cumulus/revision_waits", True),
        ("cumulus", "cumulus/revision_none", False),
        ("srlinux", "srlinux/commit_waits", True),
        ("srlinux", "srlinux/commit_none", False),
    ],
)
def test_a_waiting_commit_is_read(name, answer, waits):
    """Ours waits, or none does; on EOS another's is told from ours."""
    confirmed = platform(name).confirmed
    assert confirmed.waits(said(answer), "rb-1-0") is waits
    if name == "eos" and waits:
        assert confirmed.waits(said(answer), "rb-2-0") is None


def test_what_linux_forgets_with_a_link_is_put_back():
    """IPv6 addresses and routes set by hand; not those of daemons and of the kernel."""
    facts = said("frr/addresses"), said("frr/routes4"), said("frr/routes6")
    assert platform("frr").render(link("frr"), facts).undo == (
        "ip link set dev eth2 up",
        "ip -6 address replace 2001:db8::1/64 dev eth2 nodad",
        "ip -4 route replace 192.0.2.0/24 via 10.7.12.2 dev eth2",
        "ip -6 route replace 2001:db8:9::/48 via 2001:db8::2 metric 1024 dev eth2",
    )


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in PORTS if name != "frr"])
def test_a_share_of_packets_is_refused_on_every_access_list(name):
    """With what to do instead; all packets pass."""
    told = refusal(platform(name), drop(name, millionths=10_000))
    assert "cannot drop 1 % of a flow" in told
    assert "instead" in told or "or drop" in told
    assert refusal(platform(name), drop(name)) == ""
    assert refusal(platform("frr"), drop("frr", millionths=10_000)) == ""


@pytest.mark.parametrize("name", list(PORTS))
def test_what_no_switch_does_is_refused(name):
    """The wire's side, processes, power."""
    wire = LinkState(Place("leaf1", PORTS[name], "wire"))
    assert "opposite end" in refusal(platform(name), wire)
    lost = PacketDrop(Place("leaf1", PORTS[name], "wire"), TABLE, "udp dport 4791")
    assert "opposite end" in refusal(platform(name), lost)
    for change in (ProcessSignal(Place("leaf1", process="bgpd")), NodePower(Place("leaf1"))):
        assert "cannot be done by command line" in refusal(platform(name), change)
    assert "\n" not in refusal(platform(name), wire)


def test_refusals_that_only_one_platform_has():
    """DSCP where its form is not known, a neighbour by interface, lists that are taken."""
    dscp = "ip dscp 26 udp dport 4791"
    assert "DSCP" in refusal(platform("sonic"), drop("sonic", dscp))
    assert "DSCP" in refusal(platform("srlinux"), drop("srlinux", dscp))
    assert refusal(platform("eos"), drop("eos", dscp)) == ""
    assert refusal(platform("cumulus"), drop("cumulus", dscp)) == ""
    assert "takes an address" in refusal(platform("sonic"), shut("PortChannel1"))
    with pytest.raises(CapabilityError, match="has the access list EDGE already"):
        platform("eos").render(drop("eos"), (said("eos/port_config_taken"),))
    with pytest.raises(BlockedError, match="waits to be applied"):
        platform("cumulus").render(link("cumulus"), ("- set:\n    interface: …\n",))


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ("udp dport 4791", Match(udp=True, dport=4791)),
        ("udp dport 4791 ip saddr 10.0.0.1", Match((4,), "10.0.0.1/32", udp=True, dport=4791)),
        ("ip6 daddr 2001:db8::/32", Match((6,), destination="2001:db8::/32")),
        ("ip6 dscp 0x1a udp sport 5", Match((6,), udp=True, sport=5, dscp=26)),
    ],
)
def test_the_part_of_nftables_that_lists_have_is_read_exactly(match, found):
    assert parse(match) == found


@pytest.mark.parametrize(
    ("match", "words"),
    [
        ("", "ARP, LLDP"),
        ("udp dport 4791-4792", "'4791-4792' is not a port"),
        ("udp dport != 4791", "'4791' is not whole"),
        ("udp dport { 4791, 1 }", "4791, 1 is not among"),
        ("tcp dport 179", "tcp dport is not among"),
        ("udp dport 70000", "from 0 to 65535"),
        ("ip dscp af41", "not a code point"),
        ("ip saddr 10.0.0.1 ip saddr 10.0.0.2", "given twice"),
        ("ip saddr 10.0.0.1 ip6 daddr ::1", "never both"),
        ("ip saddr 2001:db8::1", "is no IPv4 address"),
        ("ip saddr 10.0.0.1/8", "neither one address nor one prefix"),
        ("ip saddr @set", "neither one address"),
        ("meta mark 1", "meta mark is not among"),
        ("udp dport", "is not whole"),
    ],
)
def test_anything_else_is_refused_with_the_words_that_do_it(match, words):
    with pytest.raises(CapabilityError) as caught:
        parse(match)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_carrier_of_a_host_is_taken_at_its_switch():
    """A `wire` change becomes the port of the switch at the other end, if there is one."""
    nodes = {name: Node(name) for name in ("h1", "leaf1", "h2")}
    links = (Link(Port("h1", "eth1"), Port("leaf1", "Ethernet2")),
             Link(Port("h1", "eth2"), Port("h2", "eth1")))  # fmt: skip
    fabric = Fabric("f", nodes, links)
    wire = LinkState(Place("h1", "eth1", "wire"))
    assert at_opposite_end(wire, fabric, ["leaf1"]) == LinkState(Place("leaf1", "Ethernet2"))
    with pytest.raises(CapabilityError, match="h2 is no switch"):
        at_opposite_end(LinkState(Place("h1", "eth2", "wire")), fabric, ["leaf1"])


def test_names_find_their_table():
    """Ours, Ansible's, Netmiko's; an unknown one gets near names."""
    assert platform("nokia.srlinux.srlinux") is platform("SRL") is srlinux.SRLINUX
    assert platform("arista_eos") is eos.EOS
    assert platform("cumulus_linux") is cumulus.CUMULUS
    with pytest.raises(SpecError, match="did you mean arista_eos"):
        platform("arista_es")
    names = [alias for one in PLATFORMS for alias in (one.name, *one.aliases)]
    assert len(names) == len(set(names)) + sum(one.name in one.aliases for one in PLATFORMS)


@pytest.mark.parametrize(
    ("name", "answer", "line"),
    [
        ("eos", "% Invalid input (at token 0: 'shutdwn')", "% Invalid input"),
        ("eos", "some text\n% Cannot commit session", "% Cannot commit"),
        ("srlinux", "Error: Path 'interface x' not found", "Error: Path"),
        ("srlinux", "Parsing error: Unknown token 'foo'.", "Parsing error"),
        ("frr", "% Specify remote-as or peer-group commands first", "% Specify"),
        ("cumulus", "Error: Invalid parameter", "Error"),
        ("sonic", "Usage: config interface shutdown [OPTIONS] <interface_name>", "Usage"),
    ],
)
def test_rejections_are_told_from_answers(name, answer, line):
    assert platform(name).rejection(answer).startswith(line)
    assert platform(name).rejection("   neighbor 10.0.0.1 shutdown\n") == ""


# ---- the dead-man: a script, really run ----------------------------------------------------------


@pytest.fixture
def box(tmp_path, monkeypatch):
    """A folder for leases of our own; `sh(command)` runs one as a switch's shell would."""
    monkeypatch.setattr(deadman, "FOLDER", str(tmp_path / "leases"))
    monkeypatch.setattr(deadman, "SYSTEMD", "/nonexistent")  # `test_ssh_systemd` has it

    def sh(command):
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        return done.returncode

    return tmp_path, sh


def arm(sh, undo, lease_s):
    for command in deadman.arm("t", undo, lease_s):
        assert sh(command) == 0, command


def wait_for(condition, turns=400):
    for _ in range(turns):
        if condition():
            return True
        subprocess.run(["sleep", "0.02"], check=True)
    return False


def test_the_dead_man_acts_when_its_lease_is_over(box):
    """Every undo is run, also after one that fails; then nothing of it is left."""
    folder, sh = box
    arm(sh, ["false", f"echo back >> {folder}/out"], 1)
    assert wait_for((folder / "out").exists)
    assert wait_for(lambda: not list((folder / "leases").iterdir()))
    assert sh(deadman.guarded("t", ["true"])) != 0  # no deed without it


def test_the_dead_man_waits_while_its_lease_is_renewed_and_not_beyond_the_bound(box):
    """Renewed past two leases it does nothing; at the bound it acts whatever is renewed."""
    folder, sh = box
    arm(sh, [f"touch {folder}/out"], 3)
    assert sh(deadman.stands("t")) == 0
    assert sh(deadman.guarded("t", [f"touch {folder}/done"])) == 0
    for _ in range(10):
        subprocess.run(["sleep", "0.5"], check=True)
        assert sh(deadman.renew("t", 3)) == 0
    assert not (folder / "out").exists()
    assert sh(deadman.bound("t", 1)) == 0
    assert sh(deadman.renew("t", 60)) == 0
    assert wait_for((folder / "out").exists)
    assert sh(deadman.renew("t", 3)) != 0


def test_a_disarmed_dead_man_ends_without_acting(box):
    """And disarming twice is safe."""
    folder, sh = box
    arm(sh, [f"touch {folder}/out"], 2)
    assert sh(deadman.disarm("t")) == 0
    assert sh(deadman.disarm("t")) == 0
    assert wait_for(lambda: sh(deadman.stands("t")) != 0)
    subprocess.run(["sleep", "2.5"], check=True)
    assert not (folder / "out").exists()


def test_undo_of_what_was_half_done_needs_nothing_to_be_there():
    """The undo of a drop names only what is ours, in the reverse order of making it."""
    for name in ("sonic", "cumulus", "srlinux", "eos"):
        found = platform(name).render(drop(name), ())
        assert all("0000abcd" in line for line in found.undo if "acl" in line or "access" in line)
    assert frr.render(drop("frr"), ()).undo[0].startswith("nft 'add table netdev ")
