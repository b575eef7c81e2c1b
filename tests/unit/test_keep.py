"""What is kept of a variant's record, and its line in the table."""

import gzip
import json

from suites import keep

RECORD = {
    "experiment": {
        "promise": "it acts",
        "fabric": "/somewhere/clos.clab.yml",
        "faults": [{"text": "packet_loss(link=a--b, share=1 %)"}],
        "objectives": [
            {"sentence": "flow_lost_packets: expected at least 1 packets"},
            {"sentence": "flow_lost_packets: expected at most 60 packets"},
        ],
    },
    "fabric": {"driver": "netns", "name": "clos", "nodes": {}},
    "verdict": "pass",
    "plan": ["nft …"],
    "measures": [
        {"name": "flow_lost_packets", "value": 12.0, "censored": False},
        {"name": "detection_flow_gap_ms", "value": 1.456, "censored": False},
        {"name": "detection_first_ms", "value": 1.456, "censored": False},
        {"name": "detection_bfd_ms", "value": 900.0, "censored": True},
    ],
    "comparability": {"command": ["pytest", "suites/test_variants.py::test[x]"]},
    "trials": [
        {
            "series": [1] * 9,
            "spans": [],
            "extra": {},
            "proof": {
                "in_force": True, "hit": 12, "seen": 2022, "taken_back": True, "residue": [],
            },
        }
    ],
}  # fmt: skip
ROW = (
    "| `packet_loss(link=a--b, share=1 %)` | yes | 12 of 2022 | flow_lost_packets 12 | "
    "flow_gap 1.46 ms | yes | none | pass |"
)


def test_a_row_says_what_was_proved_felt_and_noticed():
    assert keep.row(RECORD) == ROW


def test_what_is_wrong_is_shown_as_it_is():
    proof = {"in_force": False, "hit": None, "seen": 0, "taken_back": False, "residue": ["x | y"]}
    bad = {**RECORD, "verdict": "fail", "measures": [], "trials": [{"proof": proof}]}
    assert keep.row(bad) == (
        "| `packet_loss(link=a--b, share=1 %)` | no | not counted | – | nobody | no "
        "| x / y | fail |"
    )


def test_records_of_other_suites_and_what_is_large_are_left_out(tmp_path, capsys):
    other = {**RECORD, "comparability": {"command": ["pytest", "suites/test_gray.py::test_x"]}}
    for name, record in (("one", RECORD), ("two", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(json.dumps(record))

    keep.main(str(tmp_path), str(tmp_path / "out.gz"))

    [line] = gzip.decompress((tmp_path / "out.gz").read_bytes()).decode().splitlines()
    assert json.loads(line) == {
        **{key: value for key, value in RECORD.items() if key not in ("plan", "fabric")},
        "driver": "netns",
        "experiment": {**RECORD["experiment"], "fabric": "clos"},
        "trials": [{"proof": RECORD["trials"][0]["proof"]}],
    }
    assert capsys.readouterr().out.splitlines()[2:] == [ROW]


def test_what_was_kept_before_stays_until_its_variant_is_tried_again(tmp_path, capsys):
    out = tmp_path / "out.gz"

    def keep_one(run, promise, verdict, add):
        experiment = {**RECORD["experiment"], "promise": promise}
        (tmp_path / run / "one").mkdir(parents=True)
        (tmp_path / run / "one" / "record.json").write_text(
            json.dumps({**RECORD, "experiment": experiment, "verdict": verdict})
        )
        keep.main(str(tmp_path / run), str(out), add=add)
        return [line.rsplit(" | ", 1)[1] for line in capsys.readouterr().out.splitlines()[2:]]

    assert keep_one("first", "a", "inconclusive", False) == ["inconclusive |"]
    assert keep_one("second", "b", "pass", True) == ["inconclusive |", "pass |"]
    assert keep_one("third", "a", "pass", True) == ["pass |", "pass |"]
    assert keep_one("fourth", "b", "fail", False) == ["fail |"]
