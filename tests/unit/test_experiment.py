"""Experiment files: what is read, and the whole sentence of every refusal."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from chaos import registry
from chaos.errors import SpecError
from chaos.experiment import Experiment, Phases, Range, load, loads
from chaos.fabric import Fabric, Link, Node, Port
from chaos.objectives import Bound, DetectedBy, FalseAlarms, Named, UndetectedBy
from chaos.units import Duration, Percent, Pps, Size

DATA = Path(__file__).parent.parent / "data" / "experiments"
SLOW, SMALL = Pps(1000), Size(2**20)
WRONG = sorted(path for path in DATA.glob("*.yaml") if path.stem != "right")


@dataclass(frozen=True)
class LinkDown:
    """A fault with a choice, for these tests."""

    name = "link_down"
    link: str
    mode: Literal["admin", "carrier", "silent"] = "carrier"
    end: str = "near"

    def changes(self, fabric):
        link = fabric.link(self.link)
        if self.end not in ("both", *link.nodes):
            raise SpecError(f"link {link.id} has no end {self.end!r}")
        return ()

    def schedule(self, storm, rng):
        return ()


@dataclass(frozen=True)
class PacketDrop:
    """A fault with a share, for these tests."""

    name = "packet_drop"
    share: Percent

    def changes(self, fabric):
        return ()


@dataclass(frozen=True)
class NodeDown:
    """A fault of a node, for these tests."""

    name = "node_down"
    node: str

    def changes(self, fabric):
        fabric.node(self.node)
        return ()

    def schedule(self, storm, rng):
        return ()


@dataclass(frozen=True)
class Flaps:
    """A fault of a second, give or take a fifth, for these tests."""

    name = "flaps"

    def changes(self, fabric):
        return ()

    def schedule(self, storm, rng):
        if rng.uniform(0.8, 1.2) > storm.s:
            raise SpecError(f"1 turn does not fit into a storm of {storm}")
        return ()


@dataclass(frozen=True)
class RankStop:
    """A fault of a rank, for these tests."""

    name = "rank_stop"
    rank: int


@dataclass(frozen=True)
class Flow:
    """A probe with traffic, for these tests."""

    name = "flow"
    schema: ClassVar = dict.fromkeys(
        ("flow_outage_longest_ms", "stall_ms", "share_percent", "job_wrong_values")
    )
    source: str = "host1"
    target: str = "host2"
    rate: Pps = SLOW

    def programs(self, fabric, addresses):
        fabric.node(self.source)
        fabric.node(self.target)
        return ()

    def streams(self, addresses, records):
        return ()


@dataclass(frozen=True)
class Collective:
    """A probe with a list, for these tests."""

    name = "collective"
    schema: ClassVar = dict.fromkeys(("job_recovery_ms", "job_wrong_values"))
    hosts: tuple[str, ...]
    size: Size = SMALL
    timeout: Duration | None = None

    def programs(self, fabric, addresses):
        for host in self.hosts:
            fabric.node(host)
        return ()

    def streams(self, addresses, records):
        return ()


@dataclass(frozen=True)
class Quiet:
    """A probe without fields, for these tests."""

    schema: ClassVar = {}

    def programs(self, fabric, addresses):
        return ()


@dataclass(frozen=True)
class Storage(Quiet):
    """Traffic of a third party, for these tests."""

    name = "storage"

    def streams(self, addresses, records):
        return ()


@pytest.fixture(autouse=True)
def catalogue(monkeypatch):
    """Only the tiny faults and probes of this file, whatever is installed."""
    monkeypatch.setattr("chaos.experiment.load_registry", lambda: None)
    for table, made in (
        (
            registry.FAULTS,
            {"link_down": LinkDown, "packet_drop": PacketDrop, "rank_stop": RankStop},
        ),
        (
            registry.PROBES,
            {
                **{"flow": Flow, "collective": Collective, "storage": Storage, "path": Quiet},
                **{"kernel_events": Quiet, "routing": Quiet},
            },
        ),
    ):
        for name in list(table):
            monkeypatch.delitem(table, name)
        for name, cls in made.items():
            monkeypatch.setitem(table, name, cls)


@pytest.fixture
def right():
    """A file without a mistake, as text."""
    return (DATA / "right.yaml").read_text()


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_a_wrong_file_is_refused_with_its_sentence(path, monkeypatch):
    monkeypatch.chdir(DATA)

    with pytest.raises(SpecError) as refusal:
        load(path.name)

    assert str(refusal.value) == path.with_suffix(".txt").read_text().strip()


def test_every_wrong_file_names_its_file_and_line(monkeypatch):
    """Only what has no lines (text that is not UTF-8) may lack one."""
    monkeypatch.chdir(DATA)
    for path in WRONG:
        with pytest.raises(SpecError) as refusal:
            load(path.name)
        assert refusal.value.file == path.name
        assert refusal.value.line is not None or path.stem == "latin1"


def test_a_right_file_is_read_whole():
    found = load(DATA / "right.yaml")

    assert found == Experiment(
        promise="A spine uplink that goes down costs the flow at most one packet.",
        fabric="clos-2x4x8",
        faults=(LinkDown("in-use leaf--spine", "carrier", "both"),),
        probes={"flow": Flow("host1", "host8", Pps(2000)), "kernel_events": Quiet()},
        objectives=(
            Bound("flow_outage_longest_ms", at_most=10, because="one re-hash and no routing"),
            DetectedBy("carrier", within=Duration.parse("50 ms")),
        ),
        exposed="flow",
        phases=Phases(Duration.parse("2 s"), Range.parse("1.5 s"), Duration.parse("2 s")),
        trials=3,
        placebos=1,
        seed=1,
        max_life=Duration.parse("60 s"),
        name="right",
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            "{measure: stall_ms, at_most: 2 s, share: 90 %}",
            Bound("stall_ms", at_most=2000.0, share=Percent(90)),
        ),
        (
            "{measure: share_percent, at_least: 5 %, at_most: 10}",
            Bound("share_percent", 10.0, 5.0),
        ),
        ("{measure: job_wrong_values, at_most: 0}", Bound("job_wrong_values", at_most=0.0)),
        ("{undetected_by: [carrier]}", UndetectedBy(("carrier",))),
        ("{named: right, because: it is near}", Named(because="it is near")),
        ("{false_alarms: 2}", FalseAlarms(2)),
    ],
)
def test_objectives(right, written, expected):
    text = right.replace("{detected_by: carrier, within: 50 ms}", written)

    assert loads(text).objectives[1] == expected


@pytest.mark.parametrize(
    ("objective", "sentence"),
    [
        (Bound("stall_ms", at_most=10), "stall_ms: expected at most 10 ms"),
        (
            Bound("rate_pps", at_least=10, at_most=20, share=Percent(90)),
            "rate_pps: expected at least 10 pps and at most 20 pps in at least 90 % of the trials",
        ),
        (Bound("job_wrong_values", at_most=0), "job_wrong_values: expected at most 0"),
        (DetectedBy("bfd"), "detected by bfd: expected before it heals"),
        (
            DetectedBy("bfd", Duration.parse("1 s")),
            "detected by bfd: expected within 1 s",
        ),
        (
            UndetectedBy(("bfd", "bgp", "fib")),
            "undetected by bfd, bgp and fib: expected no report",
        ),
        (UndetectedBy(("bfd",)), "undetected by bfd: expected no report"),
        (Named(), "first blamed: expected the faulted component"),
        (FalseAlarms(0), "false alarms in placebo trials: expected at most 0"),
    ],
)
def test_an_objective_says_what_it_expects(objective, sentence):
    assert objective.sentence() == sentence


def test_a_file_without_fault_is_all_placebo(right):
    text = right.replace(
        "fault:\n  link_down: {link: in-use leaf--spine, mode: carrier, end: both}", "fault: null"
    ).replace("{detected_by: carrier, within: 50 ms}", "{false_alarms: 0}")

    found = loads(text)

    assert (found.placebo, found.trials, found.placebos, found.exposed) == (True, 3, 0, "none")


def test_a_probe_may_occur_twice_under_labels(right):
    text = right.replace("  flow: {source", "  flow/a: {source").replace(
        "  kernel_events: {}", "  kernel_events:\n  flow/b: {rate: 10 pps}\nexposed: flow/b"
    )

    found = loads(text.replace("measure: flow", "measure: a_flow"))

    assert found.exposed == "flow/b"
    assert found.probes["flow/b"] == Flow(rate=Pps(10))


def test_the_measures_of_a_labelled_probe_carry_its_label(right):
    text = right.replace(
        "kernel_events: {}", "kernel_events:\n  flow/b: {rate: 10 pps}\nexposed: flow"
    )

    for name in ("b_stall_ms", "detection_carrier_ms", "localisation_ms"):
        assert loads(text.replace("flow_outage_longest_ms", name)).objectives[0].measure == name
    with pytest.raises(SpecError, match=r"no measure 'detection_bfd_ms' from these probes; did"):
        loads(text.replace("flow_outage_longest_ms", "detection_bfd_ms"))


def test_faults_may_be_several(right):
    text = right.replace(
        "fault:\n  link_down: {link: in-use leaf--spine, mode: carrier, end: both}",
        "faults:\n  - link_down: {link: in-use}\n  - packet_drop: {share: 0.1 %}",
    )

    assert loads(text).faults == (LinkDown("in-use"), PacketDrop(Percent(0.1)))


def test_yaml_1_1_guesses_are_not_made(right):
    """`on`, `0123`, `2:30` and dates stay the text that was written."""
    for word in ("on", "0123", "2:30", "2024-01-01", "1_000", "0x10"):
        assert loads(right.replace("end: both", f"end: {word}")).faults[0].end == word


def test_a_fabric_path_is_relative_to_the_file(tmp_path, right):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "x.clab.yml").write_text("name: x\n")
    file = tmp_path / "e.yaml"
    file.write_text(right.replace("clos-2x4x8", "lab/x.clab.yml"))

    assert load(file).fabric == str(tmp_path / "lab" / "x.clab.yml")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            ("target: host8", "target: host88"),
            "e.yaml:6: probes.flow.target: no node 'host88' in fabric pair; did you mean host8 or "
            "host1?",
        ),
        (
            ("in-use leaf--spine", "leaf9--spine9"),
            "e.yaml:4: fault.link_down.link: no link 'leaf9--spine9' in fabric pair; "
            "it has host1--host8, host1:eth1--host8:eth1",
        ),
        (
            (
                "kernel_events: {}",
                "kernel_events: {}\n  collective:\n    hosts:\n      - host1\n      - host9",
            ),
            "e.yaml:11: probes.collective.hosts[1]: no node 'host9' in fabric pair; did you mean "
            "host8 or host1?",
        ),
    ],
)
def test_what_the_fabric_lacks_is_refused_at_its_line(right, change, sentence):
    fabric = Fabric(
        "pair",
        {name: Node(name) for name in ("host1", "host8")},
        (Link(Port("host1", "eth1"), Port("host8", "eth1")),),
    )
    experiment = loads(right.replace(*change), "e.yaml")

    with pytest.raises(SpecError) as refusal:
        experiment.check(fabric)

    assert str(refusal.value) == sentence


ROLES = {"host1": "host", "host8": "host", "leaf1": "leaf", "leaf2": "leaf", "spine1": "spine"}
CLOS = Fabric(
    "clos",
    {name: Node(name, role=role) for name, role in ROLES.items()},
    tuple(
        Link(Port(a, x), Port(b, y))
        for a, x, b, y in (
            ("host1", "eth1", "leaf1", "eth1"),
            ("host8", "eth1", "leaf2", "eth1"),
            ("leaf1", "eth2", "spine1", "eth1"),
            ("leaf2", "eth2", "spine1", "eth2"),
        )
    ),
)


@pytest.mark.parametrize(
    "fault",
    [
        LinkDown("in-use"),
        LinkDown("in-use leaf--spine", end="both"),
        LinkDown("in-use spine--leaf", end="far"),
        LinkDown("in-use leaf--spine", end="leaf2"),
        LinkDown("in-use leaf1--spine", end="spine1"),
        LinkDown("leaf1--spine1", end="far"),
        NodeDown("in-use"),
        NodeDown("in-use spine"),
    ],
    ids=str,
)
def test_words_that_traffic_may_settle_wait_for_it(fault):
    Experiment("p", "f", (fault,), {"flow": Flow("host1", "host8")}).check(CLOS)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "link: in-use leaf-spine",
            "link: in-use FROM--TO expected, such as in-use leaf--spine; got 'in-use leaf-spine'",
        ),
        (
            "link: in-use leaf--spin",
            "link: no role or node 'spin' in fabric clos; did you mean spine or spine1?; got "
            "'in-use leaf--spin'",
        ),
        (
            "link: in-use host--spine",
            "link: no link joins host and spine in fabric clos; got 'in-use host--spine'",
        ),
        (
            "link: in-use leaf--spine, end: leaf9",
            "end: link leaf1:eth2--spine1:eth1 has no end 'leaf9'",
        ),
        (
            "link: in-use leaf1--spine, end: leaf2",
            "end: link leaf1:eth2--spine1:eth1 has no end 'leaf2'",
        ),
        ("link: in-used", "link: no link 'in-used' in fabric clos"),
        ("link: leaf9--spine1, end: near", "link: no link 'leaf9--spine1' in fabric clos"),
    ],
)
def test_words_that_no_traffic_could_settle_are_refused(right, words, sentence):
    text = right.replace("link: in-use leaf--spine, mode: carrier, end: both", words)

    with pytest.raises(SpecError) as refusal:
        loads(text, "e.yaml").check(CLOS)

    assert str(refusal.value).startswith(f"e.yaml:4: fault.link_down.{sentence}")


def test_a_node_in_use_has_a_role_of_the_fabric():
    made = Experiment("p", "f", (NodeDown("in-use spyne"),), {"flow": Flow("host1", "host8")})

    with pytest.raises(SpecError, match=r"node: no role 'spyne' in fabric clos; did you mean sp"):
        made.check(CLOS)


@pytest.mark.parametrize(
    ("storm", "sentence"),
    [
        ("1.3 s", ""),
        ("1.19 s", "faults[0].flaps: 1 turn does not fit into a storm of 1.19 s, when all is dra"),
        ("0.7 s", "faults[0].flaps: 1 turn does not fit into a storm of 700 ms"),
    ],
)
def test_the_worst_draw_must_fit_the_shortest_storm(storm, sentence):
    phases = Phases(storm=Range.parse({"from": storm, "to": "5 s"}))
    made = Experiment("p", "f", (Flaps(),), {"flow": Flow("host1", "host8")}, phases=phases)

    told = ""
    try:
        made.check(CLOS)
    except SpecError as error:
        told = str(error)
    assert told.startswith(sentence)
    assert bool(told) == bool(sentence)


def test_traffic_of_a_third_party_can_be_exposed():
    probes = {"storage": Storage(), "kernel_events": Quiet()}

    assert Experiment("p", "f", (LinkDown("in-use"),), probes).exposed == "storage"
    assert (
        Experiment(
            "p", "f", (LinkDown("in-use"),), {**probes, "flow": Flow()}, exposed="storage"
        ).exposed
        == "storage"
    )
    with pytest.raises(SpecError, match="exposed: probe kernel_events sends no traffic"):
        Experiment("p", "f", (LinkDown("in-use"),), probes, exposed="kernel_events")


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (("collective/a", "collective/b"), "both collective/a and collective/b have ranks"),
        ((), "there is none"),
    ],
)
def test_a_rank_is_a_rank_of_one_job(labels, found):
    probes = {"flow": Flow(), **dict.fromkeys(labels, Collective(("host1", "host2")))}

    with pytest.raises(SpecError, match=f"exactly one collective job among the probes; {found}"):
        Experiment("p", "f", (RankStop(0),), probes, exposed="flow")
    Experiment("p", "f", (RankStop(0),), {"collective": Collective(("host1", "host2"))})


def test_an_experiment_made_in_python_is_checked_too():
    with pytest.raises(SpecError, match=r"^trials: 1 to 10000 expected, got 0$"):
        Experiment("p", "f", (LinkDown("in-use"),), {"flow": Flow()}, trials=0)


def test_an_absent_file_names_its_neighbours():
    with pytest.raises(SpecError, match=r"rigth\.yaml: no such file; did you mean right\.yaml"):
        load(DATA / "rigth.yaml")


def test_a_folder_is_no_file():
    with pytest.raises(SpecError, match=r"cannot be read: Is a directory$"):
        load(DATA)


def test_a_drawn_storm_stays_in_its_range_and_favours_no_decade():
    """Log-uniform: half of the draws lie below the geometric mean, 100 ms (odds of a red: 1e-9)."""
    storm, rng = Range.parse({"from": "10 ms", "to": "1 s"}), random.Random(5)

    drawn = [storm.draw(rng).ms for _ in range(2000)]

    assert min(drawn) >= 10
    assert max(drawn) <= 1000
    assert 860 < sum(ms < 100 for ms in drawn) < 1140


def test_a_fixed_storm_draws_nothing():
    """A seed's stream is left alone, so that fixing a range does not move what is drawn after."""
    rng = random.Random(5)
    before = rng.getstate()

    assert Range.parse("1 s").draw(rng) == Duration.parse("1 s")
    assert rng.getstate() == before
