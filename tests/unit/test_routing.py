"""FRR's lines and the follower's records, as real routers wrote them, read into sessions."""

import json
import os
from pathlib import Path

import pytest

from chaos.errors import SpecError
from chaos.fabric import Fabric, Node
from chaos.timeline import Moment, Windows
from probes.jobs import routing as job
from probes.routing import Routing
from probes.routing_log import parse

DATA = Path(__file__).parents[1] / "data" / "probes"
MS = 1_000_000


@pytest.fixture(scope="module")
def records():
    """Six routers; the cable leaf1--spine1 lost its carrier for 3 s, later packets one way."""
    lines = (DATA / "routing-follower.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def cuts():
    return json.loads((DATA / "routing-phases.json").read_text())


def windows(cut_ns, heal_ns, end_ns):
    return Windows((0, cut_ns), Moment(cut_ns, cut_ns), Moment(heal_ns, heal_ns), end_ns)


def measured(records, over):
    found = Routing().measures(Routing().read({"follower": records}), over)
    assert [m.name for m in found] == list(Routing.schema)
    return {m.name.removeprefix("routing_"): m for m in found}


# ---- lines ---------------------------------------------------------------------------------------

STAMP = "1970/01/01 00:00:02.000003"
LINES = {
    "BGP up": (
        f"{STAMP} BGP: [N9HHH-F8H1M] %ADJCHANGE: neighbor eth1(spine1) in vrf default Up ",
        {"ev": "bgp", "peer": "eth1", "host": "spine1", "up": True, "reason": ""},
    ),
    "BGP down, numbered, no host name": (
        f"{STAMP} BGP: [PXVXG-TFNNT] %ADJCHANGE: neighbor 10.0.0.1 in vrf default Down "
        "Interface down",
        {"ev": "bgp", "peer": "10.0.0.1", "host": "", "up": False, "reason": "Interface down"},
    ),
    "hold timer": (
        f"{STAMP} BGP: [HZN6M-XRM1G] %NOTIFICATION: sent to neighbor eth1 4/0 "
        "(Hold Timer Expired) 0 bytes ",
        {
            "ev": "notification",
            "peer": "eth1",
            "sent": True,
            "code": "4/0",
            "words": "Hold Timer Expired",
        },
    ),
    "hard reset received": (
        f"{STAMP} BGP: [HZN6M-XRM1G] %NOTIFICATION(Hard Reset): received from neighbor eth1 6/10 "
        "(Cease/BFD Down) 0 bytes ",
        {
            "ev": "notification",
            "peer": "eth1",
            "sent": False,
            "code": "6/10",
            "words": "Cease/BFD Down",
        },
    ),
    "BFD down": (
        f"{STAMP} BFD: [SEY1D-NT8EQ] state-change: [mhop:no peer:fe80::1 local:fe80::2 vrf:default "
        "ifname:eth1] up -> down reason:control-expired",
        {
            "ev": "bfd",
            "peer": "fe80::1",
            "port": "eth1",
            "before": "up",
            "after": "down",
            "reason": "control-expired",
        },
    ),
    "BFD up, numbered": (
        f"{STAMP} BFD: [J1C6V-VMRW5] state-change: [mhop:no peer:10.0.0.1 local:10.0.0.2 "
        "vrf:default] init -> up",
        {
            "ev": "bfd",
            "peer": "10.0.0.1",
            "port": "",
            "before": "init",
            "after": "up",
            "reason": "",
        },
    ),
}


@pytest.mark.parametrize(("line", "wanted"), LINES.values(), ids=LINES.keys())
def test_a_line_is_one_change(line, wanted):
    assert parse(line) == wanted | {"wall_ns": 2_000_003_000, "coarse": False}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ends in mid",
        f"{STAMP} ZEBRA: [V98V0-MTWPF] client 23 says hello",
        f"{STAMP} BGP: [M59KS-A3ZXZ] bgp_update_receive: rcvd End-of-RIB for IPv4 from eth1",
        f"{STAMP} BFD: [PSB4R-8T1TJ] session-new: mhop:no peer:fe80::1 ifname:eth2",
    ],
)
def test_other_lines_are_none(line):
    assert parse(line) is None


def test_a_stamp_without_microseconds_is_called_coarse():
    assert parse("1970/01/01 00:00:02 BGP: [X] %ADJCHANGE: neighbor eth1 in vrf default Up")[
        "coarse"
    ]


def test_real_logs_hold_only_the_changes_that_a_person_finds_in_them():
    for router in ("leaf1", "spine1"):
        lines = (DATA / f"frr-8.4.4-{router}.log").read_text().splitlines()
        kinds = [found["ev"] for line in lines if (found := parse(line))]
        said = "\n".join(lines)
        assert kinds.count("bgp") == said.count("%ADJCHANGE") > 5
        assert kinds.count("notification") == said.count("%NOTIFICATION") > 5
        assert kinds.count("bfd") == said.count("state-change") > 2


# ---- the follower --------------------------------------------------------------------------------


class Told:
    """Stands in for the output of the follower."""

    def __init__(self):
        self.records = []

    def emit(self, event, at_ns=None, **facts):
        self.records.append({"ev": event, "t": at_ns, **facts})


BGP = "%ADJCHANGE: neighbor eth1 in vrf default"


@pytest.fixture
def followed(tmp_path):
    """A log that has history, and its follower."""
    path = tmp_path / "frr.log"
    path.write_text(f"{STAMP} BGP: [X] {BGP} Up\n")
    log = job.Log("r1", str(path))
    log.open()
    yield path, log
    os.close(log.fd)


def test_history_is_not_told_and_half_a_line_waits_for_its_rest(followed):
    path, log = followed
    assert list(log.lines()) == []
    with path.open("a") as file:
        file.write("one\ntw")
    assert list(log.lines()) == ["one"]
    with path.open("a") as file:
        file.write("o\n")
    assert list(log.lines()) == ["two"]


def test_a_log_that_was_cut_is_read_from_its_start(followed):
    path, log = followed
    with path.open("a") as file:
        file.write("half a line")
    assert list(log.lines()) == []
    path.write_text("new\n")
    assert list(log.lines()) == ["new"]


@pytest.mark.parametrize("hours", [0, 2, -9.5, 5.75])
def test_a_local_stamp_lands_on_the_monotonic_clock(monkeypatch, hours):
    """Whatever the zone of the log: 40 ms ago is 40 ms ago."""
    told = Told()
    monkeypatch.setattr(job, "clock_offset", lambda: (1_700_000_000_000_000_000, 250))
    monkeypatch.setattr(job, "now_ns", lambda: 5_000_000_000)
    follower = job.Follower(told, [])
    wall = 1_700_000_000_000_000_000 + 4_960_000_000 + int(hours * 3600e9)
    follower.tell(
        job.Log("r1", ""), {"ev": "bgp", "peer": "eth1", "wall_ns": wall, "coarse": False}
    )
    (record,) = told.records
    assert record["t"] == 4_960_000_000
    assert record["clock_error"] == 1250  # a microsecond of the stamp, and of the clocks
    assert (record["node"], record["port"]) == ("r1", "eth1")


# ---- reading -------------------------------------------------------------------------------------


def test_a_carrier_cut_is_lost_at_both_ends_and_nowhere_else(records, cuts):
    readings = Routing().read({"follower": records})
    assert readings.trouble == ()
    until = cuts["carrier_cut"] + 3_000 * MS
    first = [e for e in readings.events if e.at_ns < until]
    assert [(e.name, e.element, e.detector, e.blames) for e in first] == [
        ("bgp.lost", "leaf1:eth1", "bgp", "leaf1:eth1"),
        ("bfd.lost", "spine1:eth1", "bfd", "spine1:eth1"),
        ("bgp.lost", "spine1:eth1", "bgp", "spine1:eth1"),
        ("bfd.lost", "leaf1:eth1", "bfd", "leaf1:eth1"),
    ]
    assert 0 < first[0].at_ns - cuts["carrier_cut"] < 100 * MS < first[1].at_ns
    assert first[1].facts["reason"] == "control-expired"
    assert first[2].facts["notification"] == "sent 6/10 (Cease/BFD Down)"
    assert all(0 < e.facts["error_us"] < 1000 and e.facts["time"] for e in first)


def test_what_comes_back_is_no_symptom(records):
    back = [e for e in Routing().read({"follower": records}).events if e.name.endswith(".back")]
    assert {e.element for e in back} == {"leaf1:eth1", "spine1:eth1"}
    assert {(e.detector, e.blames) for e in back} == {("", "")}


def test_a_placebo_between_the_cuts_counts_zero_and_finds_nothing_to_come_back(records, cuts):
    """Zero, since the follower listened; but no duration, since nothing was lost."""
    start = cuts["silent_cut"] - 250 * MS
    found = measured(records, windows(start, start + 50 * MS, cuts["silent_cut"]))
    assert found["bfd_lost_count"].value == found["bgp_lost_count"].value == 0
    assert found["hold_timer_expired_count"].value == 0
    assert found["bfd_reestablished_ms"].value is None
    assert found["bfd_reestablished_ms"].note == "no BFD session was lost"


def test_measures_of_the_carrier_cut(records, cuts):
    cut = cuts["carrier_cut"]
    found = measured(records, windows(cut, cut + 3_000 * MS, cuts["silent_cut"]))
    assert (found["bfd_lost_count"].value, found["bgp_lost_count"].value) == (2, 2)
    assert found["hold_timer_expired_count"].value == 0
    assert 500 < found["bfd_reestablished_ms"].value < found["bgp_reestablished_ms"].value < 8000
    assert not found["bgp_reestablished_ms"].censored


def test_a_session_still_down_at_the_end_is_censored_and_named(records, cuts):
    cut = cuts["carrier_cut"]
    found = measured(records, windows(cut, cut + 3_000 * MS, cut + 5_000 * MS))
    late = found["bgp_reestablished_ms"]
    assert (late.value, late.censored) == (2000, True)
    assert late.note == "still down: leaf1:eth1, spine1:eth1"


def change(ev, n, at_ns, **facts):
    common = {"ev": ev, "t": at_ns, "n": n, "node": "r1", "port": "eth1", "clock_error": 1200}
    return common | {"coarse": False} | facts


def notification(n, at_ns, sent, code):
    return change("notification", n, at_ns, peer="eth1", sent=sent, code=code, words="w")


def lost(n, at_ns, **facts):
    return change("bgp", n, at_ns, peer="eth1", host="r2", up=False, reason="x", **facts)


READY = {"ev": "ready", "t": 0, "n": 1}
REASONS = {
    "own hold timer": ([notification(2, 10, True, "4/0"), lost(3, 20)], "hold_timer"),
    "the peer's hold timer": ([notification(2, 10, False, "4/0"), lost(3, 20)], "bgp"),
    "BFD": ([notification(2, 10, True, "6/10"), lost(3, 20)], "bgp"),
    "nothing said": ([lost(2, 20)], "bgp"),
    "a notification of long ago": (
        [notification(2, 10, True, "4/0"), lost(3, 10 + 101 * MS)],
        "bgp",
    ),
    "another neighbour's": (
        [notification(2, 10, True, "4/0") | {"peer": "eth2"}, lost(3, 20)],
        "bgp",
    ),
}


@pytest.mark.parametrize(("lines", "detector"), REASONS.values(), ids=REASONS.keys())
def test_only_the_own_hold_timer_is_the_hold_timer(lines, detector):
    (event,) = Routing().read({"follower": [READY, *lines]}).events
    assert event.detector == detector


def bfd(before, after, reason="control-expired"):
    return change("bfd", 2, 10, peer="p", before=before, after=after, reason=reason)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (bfd("up", "down"), [("bfd.lost", "bfd")]),
        (bfd("init", "up", ""), [("bfd.back", "")]),
        (bfd("down", "init"), []),
        (bfd("init", "down"), []),  # it never was up
        (bfd("up", "down", "admin-down"), [("bfd.lost", "")]),  # somebody wanted it
        (bfd("up", "adm-down", "admin"), [("bfd.lost", "")]),
    ],
)
def test_bfd_states_that_matter(line, told):
    events = Routing().read({"follower": [READY, line]}).events
    assert [(e.name, e.detector) for e in events] == told


def test_a_session_over_no_one_port_blames_nothing():
    line = lost(2, 20) | {"port": "", "peer": "10.255.0.1"}
    (event,) = Routing().read({"follower": [READY, line]}).events
    assert (event.element, event.blames, event.detector) == ("r1:10.255.0.1", "", "bgp")


def beat(n, at_s, offset=0):
    return {"ev": "beat", "t": int(at_s * 1e9), "n": n, "clock_offset": offset}


TROUBLE = {
    "never ready": ([], "routing: the follower never became ready"),
    "silence": ([READY, beat(2, 1), beat(3, 4)], "routing: the follower fell silent for seconds"),
    "a clock that stepped": (
        [READY, beat(2, 1), beat(3, 1.5, 7 * MS)],
        "routing: the wall clock stepped by 7.0 ms",
    ),
    "records gone": (
        [READY, beat(2, 1), beat(3, 1.5), beat(5, 2)],
        "routing: records of the follower are missing",
    ),
    "whole seconds": (
        [READY, lost(2, 5, coarse=True)],
        "routing: logs of r1 have no microseconds; FRR needs `log timestamp precision 6`",
    ),
}


@pytest.mark.parametrize(("lines", "sentence"), TROUBLE.values(), ids=TROUBLE.keys())
def test_doubtful_records_are_trouble(lines, sentence):
    assert Routing().read({"follower": lines}).trouble == (sentence,)


def test_changes_out_of_their_order_are_no_trouble():
    """A change is stamped by its daemon, so it may be older than the beat told before it."""
    lines = [READY, beat(2, 1), beat(3, 1.5), lost(4, int(1.4e9)), beat(5, 2)]
    assert Routing().read({"follower": lines}).trouble == ()


def test_events_ascend_whatever_the_order_in_which_logs_were_read():
    lines = [READY, lost(2, 30), lost(3, 20) | {"node": "r2"}]
    assert [e.node for e in Routing().read({"follower": lines}).events] == ["r2", "r1"]


def test_notices_are_short(records):
    said = [notice for record in records if (notice := Routing.notice(record))]
    assert "spine1:eth1 bfd lost (control-expired)" in said
    assert "leaf1:eth1 bgp back" in said
    assert len(said) == sum(record["ev"] in ("bgp", "bfd") for record in records)


def test_it_refuses_what_runs_no_frr():
    fabric = Fabric("f", {"r1": Node("r1", runs="frr"), "h1": Node("h1")})
    with pytest.raises(SpecError, match="h1 does not run FRR; routers that do: r1"):
        Routing(("h1",)).programs(fabric, {})
    with pytest.raises(SpecError, match="no node of fabric g runs FRR"):
        Routing().programs(Fabric("g", {"h1": Node("h1")}), {})
