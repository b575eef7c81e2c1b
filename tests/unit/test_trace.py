"""Traces: what is read, and the whole sentence of every refusal."""

import pytest

from chaos.errors import SpecError
from chaos.experiment import loads
from chaos.experiment_faults import traced
from chaos.registry import load as load_registry
from chaos.trace import MOST, read
from faults.link_down import LinkDown
from faults.node_down import NodeDown
from faults.rank_stop import RankStop

S, HOUR = 10**9, 3600
HEAD = "start,end,element,fault\n"


@pytest.fixture(autouse=True)
def catalogue():
    load_registry()


def rows(text, compress=HOUR):
    return read(HEAD + text, "t.csv", compress, traced).rows


def test_a_trace_is_read():
    """An hour of the trace is a second of the storm; comments and empty lines are passed over."""
    found = rows(
        "0 h,2 h,leaf1--spine1,link_down\n# a comment\n\n"
        "90 m, 2.5 h ,spine2,node_down\n0.5 d,13 h,leaf1--spine2,link_down mode=admin end=leaf1\n"
        "14 h,15 h,rank3,rank_stop\n"
    )

    assert [(one.line, one.at_ns, one.until_ns) for one in found] == [
        (2, 0, 2 * S), (5, 3 * S // 2, 5 * S // 2), (6, 12 * S, 13 * S), (7, 14 * S, 15 * S),
    ]  # fmt: skip
    assert [one.fault for one in found] == [
        LinkDown("leaf1--spine1"), NodeDown("spine2"), LinkDown("leaf1--spine2", "admin", "leaf1"),
        RankStop(3),
    ]  # fmt: skip


def test_dates_are_counted_from_the_earliest():
    found = rows(
        "2026-05-01T12:00,2026-05-01T13:00,leaf1--spine1,link_down\n"
        "2026-05-01T10:00,2026-05-01T10:30,leaf1--spine2,link_down\n"
    )

    assert [(one.at_ns, one.until_ns) for one in found] == [(2 * S, 3 * S), (0, S // 2)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "t.csv: no fault in it; a line such as 0 h,2 h,leaf1--spine1,link_down"),
        (
            "0 h,2 h,leaf1--spine1\n",
            "t.csv:2: 4 cells expected (start, end, element, fault), got 3",
        ),
        (
            "0 h,2 h,a--b,link_down\nnoon,2 h,a--b,link_down\n",
            "t.csv:3: column 1 (start): a time such as 90 s, 12 h or 3 d, or a date such as "
            "2026-05-01T10:00, got 'noon'",
        ),
        (
            "0 h,2026-05-01,a--b,link_down\n",
            "t.csv:2: column 2 (end): a time such as 12 h expected, as in the lines before, got "
            "'2026-05-01'",
        ),
        (
            "3 h,2 h,a--b,link_down\n",
            "t.csv:2: column 2 (end): a time after the start (3 h) expected, got '2 h'",
        ),
        (
            "0 h,2 h,a--b,link_dwn\n",
            "t.csv:2: column 4 (fault): no fault 'link_dwn'; did you mean link_down",
        ),
        (
            "0 h,2 h,a--b,link_down modus=admin\n",
            "t.csv:2: column 4 (fault): no field 'modus' in fault link_down; did you mean mode?",
        ),
        (
            "0 h,2 h,leaf3,rank_stop\n",
            "t.csv:2: column 3 (element): a rank such as rank3 expected, got 'leaf3'",
        ),
    ],
)
def test_a_wrong_trace_is_refused_with_its_place(text, says):
    with pytest.raises(SpecError) as refusal:
        rows(text)

    assert str(refusal.value).startswith(says)


def test_a_wrong_head_is_refused():
    with pytest.raises(SpecError) as refusal:
        read("begin,end,element,fault\n", "t.csv", 1, traced)

    told = "t.csv:1: a head of start,end,element,fault expected, got begin,end,element,fault"
    assert str(refusal.value) == told


def test_more_than_can_be_held_are_refused():
    with pytest.raises(SpecError, match=f"at most {MOST} faults expected, got {MOST + 1}"):
        rows("0 h,2 h,a--b,link_down\n" * (MOST + 1))


TEXT = """
promise: p
fabric: clos-2x4x8
trace: {file: t.csv, compress: 3600}
probes: {flow: {source: host1, target: host8}}
phases: {storm: 4 s}
objectives: [{measure: flow_lost_packets, at_most: 9}]
"""


def test_a_trace_is_relative_to_its_experiment(tmp_path):
    (tmp_path / "t.csv").write_text(HEAD + "0 h,2 h,leaf1--spine1,link_down\n")

    found = loads(TEXT, str(tmp_path / "e.yaml"))

    assert (found.placebo, found.placebos, len(found.trace.rows)) == (False, 1, 1)


@pytest.mark.parametrize(
    ("trace", "says"),
    [
        ("{file: u.csv, compress: 1}", "e.yaml:4: trace.file: no such file"),
        ("{file: t.csv, compress: 0}", "e.yaml:4: trace.compress: above 0 and at most 1e12"),
        ("{file: t.csv}", "e.yaml:4: trace: a trace needs compress"),
        ("t.csv", "e.yaml:4: trace: a trace is a mapping of file, compress; got 't.csv'"),
    ],
)
def test_a_trace_that_cannot_be_read_is_refused(tmp_path, trace, says):
    (tmp_path / "t.csv").write_text(HEAD + "0 h,2 h,leaf1--spine1,link_down\n")

    with pytest.raises(SpecError) as refusal:
        loads(TEXT.replace("{file: t.csv, compress: 3600}", trace), str(tmp_path / "e.yaml"))

    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            "0 h,2 h,leaf9--spine1,link_down",
            "t.csv:2: column 3 (element): no link 'leaf9--spine1' in fabric clos-2x4x8; did you",
        ),
        (
            "0 h,5 h,leaf1--spine1,link_down",
            "t.csv:2: column 2 (end): a fault that ends within the storm of 4 s expected, got an "
            "end 5 s after it began; compress at least 4.5e+03 times",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_its_cell(tmp_path, row, says):
    from chaos.plan import lines
    from chaos.topology import load as load_topology

    (tmp_path / "t.csv").write_text(HEAD + row + "\n")
    experiment = loads(TEXT, str(tmp_path / "e.yaml"))

    with pytest.raises(SpecError) as refusal:
        lines(experiment, load_topology("clos-2x4x8"))

    assert says in str(refusal.value)
