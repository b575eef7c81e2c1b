"""Runs side by side: what is compared, and what is not."""

from dataclasses import replace

import pytest

from chaos import compare
from chaos.errors import SpecError
from chaos.record import Record
from chaos.timeline import Measure


def made(fidelity, *measures, name="remote_link_down", driver="netns"):
    return Record(
        experiment={"name": name},
        fabric={"driver": driver, "name": "clos", "fidelity": fidelity},
        seed=1,
        plan=(),
        comparability={"commit": {"id": "0123456789abcdef", "dirty": True}, "started": "now"},
        measures=measures,
        verdict="pass",
    )


FAST = Measure("flow_outage_longest_ms", 10.0, 9.0, 11.0, n=10)
SLOW = Measure("flow_outage_longest_ms", 20.0, 19.0, 21.0, n=10)


def test_intervals_of_one_label_that_do_not_meet_are_told_apart():
    (row,) = compare.rows([made("namespace", FAST), made("namespace", SLOW)])
    assert row.differs == ((0, 1),)
    near = replace(SLOW, low=10.5)
    (row,) = compare.rows([made("namespace", FAST), made("namespace", near)])
    assert row.differs == ()


def test_figures_of_different_labels_are_never_compared():
    records = [made("namespace", FAST), made("container", SLOW, driver="containerlab")]
    (row,) = compare.rows(records)
    assert row.differs == ()
    assert "not compared" in compare.labels(compare.columns(records))
    assert "≠" not in compare.markdown(compare.columns(records), [row])


def test_of_three_only_the_two_of_one_label_are_compared():
    records = [made("namespace", FAST), made("container", SLOW), made("namespace", SLOW)]
    (row,) = compare.rows(records)
    assert row.differs == ((0, 2),)


def test_what_one_record_lacks_is_a_dash_and_no_difference():
    (row,) = compare.rows([made("namespace", FAST), made("namespace")])
    assert row.cells == (FAST, None)
    assert row.differs == ()
    assert compare.cell(None) == "–"


def test_a_table_for_a_document():
    records = [made("namespace", FAST), made("namespace", SLOW)]
    text = compare.markdown(compare.columns(records), compare.rows(records))
    assert text.splitlines() == [
        "| measure | netns: clos (namespace) | netns: clos (namespace) |",
        "| --- | --- | --- |",
        "| verdict | pass, 0 trials | pass, 0 trials |",
        "| flow_outage_longest_ms ≠ | 10 [9, 11], n=10 | 20 [19, 21], n=10 |",
    ]


@pytest.mark.parametrize(
    ("records", "names", "said"),
    [
        ([made("namespace")], (), "two records or more expected, got 1"),
        ([made("namespace"), made("namespace", name="nic_down")], (), "different experiments"),
        ([made("namespace", FAST)] * 2, ("flow_outage",), "no record has a measure 'flow_outage'"),
    ],
)
def test_misuse_is_a_sentence(records, names, said):
    def both():
        return compare.columns(records), compare.rows(records, names)

    with pytest.raises(SpecError, match=said):
        both()
