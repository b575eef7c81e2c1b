"""The report page: complete, self-contained, escaped, and honest about what was not measured."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from chaos import record as records
from chaos.report import page
from chaos.report.axis import Clock, in_force
from chaos.report.markup import Markup, tag, text
from chaos.report.sketch import places, sketch
from chaos.report.spread import counted, false_alarms
from chaos.report.timeline import MOST_POINTS, thinned

DATA = Path(__file__).parent.parent / "data" / "records"
VOID = {"meta", "link", "br", "input", "rect", "line", "circle", "path", "wbr"}


class Page(HTMLParser):
    """A page taken apart: elements with their attributes, and the words between them."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.words, self.open, self.crossed = [], [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.crossed.append(tag)

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        """All words, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def having(self, name):
        """Attributes of the elements of one class."""
        return [a for _, a in self.elements if name in (a.get("class") or "").split()]


@pytest.fixture
def passed():
    """A run that passed: three trials and a placebo."""
    return json.loads((DATA / "local_link_down.json").read_text())


@pytest.fixture
def doubtful():
    """A run with a leftover, a probe that died, and a censored recovery."""
    return json.loads((DATA / "doubtful.json").read_text())


@pytest.mark.parametrize("name", ["local_link_down", "doubtful"])
def test_every_element_is_closed_in_order(name):
    seen = Page(page(json.loads((DATA / f"{name}.json").read_text())))

    assert (seen.open, seen.crossed) == ([], [])


def test_nothing_is_fetched(passed):
    """No address in an attribute or in the style sheet; and the browser is told to fetch none."""
    source = page(passed)
    seen = Page(source)

    addresses = [
        value
        for _, attributes in seen.elements
        for key, value in attributes.items()
        if key in ("src", "href", "action", "data", "poster")
    ]
    assert all(address.startswith("data:") for address in addresses)
    assert not re.search(r"@import|url\((?!['\"]?data:)", source)
    policy = [a["content"] for _, a in seen.elements if a.get("http-equiv")]
    assert policy[0].startswith("default-src 'none'; ")
    assert len(source) < 400_000


def test_nothing_is_hidden_from_a_browser_without_scripts(passed):
    assert not [a for a in Page(page(passed)).having("trial") if "hidden" in a]


def test_a_finding_stands_with_its_reason(passed):
    seen = Page(page(passed)).text

    for finding in passed["findings"]:
        subject, _, rest = finding["sentence"].partition(": expected ")
        expected, _, got = rest.partition(", got ")
        for part in (subject, expected, got, finding["because"]):
            assert " ".join(part.split()) in seen


def test_the_worst_finding_comes_first(doubtful):
    badges = Page(page(doubtful)).having("findings")
    verdicts = re.findall(r'<li class="(\w+)"><span class="badge', page(doubtful))

    assert badges
    assert verdicts == ["fail", *["inconclusive"] * 2, *["pass"] * 7]


def test_whatever_a_record_holds_stays_text(passed):
    """Every text of the record is replaced by markup; none of it may become an element."""
    bait = "<img src=x onerror=alert(1)>\"'&"
    kept = {"schema", "verdict", "name", "started", "element", "source", "detector", "objective"}

    def poison(value, key=""):
        if isinstance(value, dict):
            return {k: poison(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [poison(one, key) for one in value]
        return bait if isinstance(value, str) and key not in kept else value

    record = poison(passed)
    record["fabric"]["nodes"], record["fabric"]["links"] = passed["fabric"]["nodes"], []
    seen = Page(page(record))

    assert {name for name, _ in seen.elements if name in ("img", "script")} == {"script"}
    assert sum(name == "script" for name, _ in seen.elements) == 1
    assert not [k for _, a in seen.elements for k in a if k.startswith("on")]
    assert seen.text.count("onerror") > 20
    assert (seen.open, seen.crossed) == ([], [])


def test_what_was_not_measured_is_said_and_never_zero(passed):
    for one in passed["measures"]:
        if one["name"] == "job_recovery_ms":
            one.update(value=None, low=None, high=None, n=0, note="the job never ran")
    seen = Page(page(passed)).text

    assert "job_recovery_ms the job never ran" in seen
    assert "until the job was back" not in seen
    assert not re.search(r"job_recovery_ms 0 ms", seen)


def test_a_censored_value_says_that_the_truth_lies_beyond(doubtful):
    seen = Page(page(doubtful))

    assert "> +4.98 s" in seen.text
    assert any(
        "trial 4; in doubt, not counted: > 4.98 s" in (a.get("title") or "")
        for a in seen.having("censored")
    )


def test_a_trial_in_doubt_counts_for_nothing(doubtful):
    """Trial 4 failed its proof: it is drawn faintly, and no median or count contains it."""
    seen = Page(page(doubtful))

    assert {t["number"] for t in counted(doubtful)} == {1, 2}
    assert all("trial 4; in doubt" in a["title"] for a in seen.having("out"))
    assert len(seen.having("out")) > 5
    assert "2 of 2" in seen.text
    assert "of 3" not in seen.text


def test_every_event_and_action_has_its_mark(passed):
    seen = Page(page(passed))
    shown = sum(
        trial["windows"]["calm_ns"][0] <= event["at_ns"] <= trial["windows"]["end_ns"]
        for trial in passed["trials"]
        for event in passed["events"]
        if event["trial"] == trial["number"]
    )
    actions = sum(len(trial["proof"]["actions"]) for trial in passed["trials"])

    assert len(seen.having("mark")) == shown + actions > 50


def test_a_mark_stands_at_its_time_since_the_fault(passed):
    trial = passed["trials"][0]
    lost = next(e for e in passed["events"] if e["trial"] == 1 and e["name"] == "carrier.lost")
    ms = (lost["at_ns"] - trial["windows"]["event"]["earliest_ns"]) / 1e6

    marks = [a for a in Page(page(passed)).having("mark") if "carrier.lost" in a["title"]]

    assert f"--t:{ms}" in [a["style"] for a in marks]
    assert 0 < ms < 1


def test_a_placebo_is_drawn_as_one(passed):
    seen = Page(page({**passed, "trials": [t for t in passed["trials"] if t["placebo"]]}))

    assert [a["class"] for a in seen.having("window")] == ["window placebo"]
    assert not seen.having("rung")
    assert "none: a placebo trial" in seen.text


def test_the_ladder_starts_at_the_fault(passed):
    rungs = passed["trials"][0]["extra"]["collective"]["rto_ladder_ms"]
    styles = {a["style"] for a in Page(page(passed)).having("rung")}

    assert f"--t:{rungs[0]}" in styles


def test_each_flap_is_shaded(passed):
    trial = passed["trials"][0]
    zero = trial["windows"]["event"]["earliest_ns"]
    trial["proof"]["actions"] = [
        {"planned_ns": at, "before_ns": at, "acknowledged_ns": at, "kind": kind, "change": 0}
        for turn in range(3)
        for kind, at in (
            ("do", zero + turn * 200_000_000),
            ("undo", zero + turn * 200_000_000 + 50_000_000),
        )
    ]

    spans = in_force(trial["proof"]["actions"], Clock.of(trial["windows"]))
    seen = Page(page({**passed, "trials": [trial]}))

    assert spans == [(0.0, 50.0), (200.0, 250.0), (400.0, 450.0)]
    assert len(seen.having("window")) == 4


def test_each_fault_of_a_storm_has_a_lane_with_its_turns(passed):
    """Stripes behind the lanes say that something was in force, and not what."""
    trial = next(t for t in passed["trials"] if not t["placebo"])
    zero = trial["windows"]["event"]["earliest_ns"]
    trial["strikes"] = [
        {"fault": name, "label": label, "text": f"{name}(…)", "at_ns": 0, "until_ns": 10**9,
         "exposed": True}
        for name, label in (("link_down", "first"), ("link_flap", ""))
    ]  # fmt: skip
    trial["proof"]["changes"] = [
        {"fault": "x", "strike": strike, "text": f"change {strike}", "hit": 1, "cure": ""}
        for strike in (0, 1)
    ]
    trial["proof"]["actions"] = [
        {"planned_ns": at, "before_ns": at, "acknowledged_ns": at, "kind": kind, "change": change}
        for change, kind, ms in (
            *((0, "do", 0), (0, "undo", 300)),
            *((1, "do", 100), (1, "undo", 150), (1, "do", 200), (1, "undo", 250)),
        )
        for at in (zero + ms * 10**6,)
    ]
    seen = Page(page(passed))
    held = [a["title"] for a in seen.having("held")]

    assert held == [
        "link_down(…): from +0 ms for 300 ms",
        "link_flap(…): from +100 ms for 50 ms",
        "link_flap(…): from +200 ms for 50 ms",
    ]
    assert "first 300 ms link_flap 2 turns" in seen.text
    assert "0–1000 ms first link_down(…) 0–1000 ms link_flap(…)" in seen.text


def test_a_death_and_a_restart_are_named_where_they_were(passed):
    """Among forty things that a job says they were one more dot, and the restart a red one."""
    trial = next(t for t in passed["trials"] if not t["placebo"])
    zero = trial["windows"]["event"]["earliest_ns"]
    passed["events"] = [
        {"trial": trial["number"], "at_ns": zero + ms * 10**6, "source": "collective", "node": "",
         "name": name, "element": "rank1", "detector": detector, "facts": {}}
        for ms, name, detector in (
            *((1, "process.exited", "job_error"), (900, "process.started", "")),
            *((2, "job.decided", ""), (905, "process.exited", "job_error")),
        )
    ]  # fmt: skip
    source = page(passed)
    lane = re.search(r"<h5>processes.*?</div></div>", source)[0]

    assert "<b>rank1 exited</b>" in lane
    assert lane.count('class="mark worse"') == 2
    assert lane.count('class="mark better"') == 1
    assert "<b>rank1 started</b>" not in lane, "no room: the next one comes 5 ms later"
    assert "decided" not in lane


def test_lengths_do_not_lie_on_each_other(passed):
    """Behind its bar where there is room, else in it, else only told when pointed at."""
    trial = next(t for t in passed["trials"] if not t["placebo"])
    zero, end = trial["windows"]["event"]["earliest_ns"], trial["windows"]["end_ns"]
    flow = next(s["element"] for s in trial["series"] if s["name"].startswith("arrived"))
    late = (end - zero) // 10**6
    trial["spans"] = [
        {"name": "outage", "element": flow, "start_ns": zero + a * 10**6,
         "end_ns": zero + b * 10**6, "facts": {}}
        for a, b in ((1, 4), (5, 7), (late - 1500, late))
    ]  # fmt: skip
    drawn = [a["class"] for a in Page(page(passed)).having("outage")]

    assert drawn == ["bar outage tight", "bar outage", "bar outage inner"]


def test_a_trial_that_broke_off_says_so(passed):
    passed["trials"][1]["windows"] = None

    assert "did not reach its end; it has no timeline" in Page(page(passed)).text


def test_a_run_without_trials_or_findings_still_has_a_page(passed):
    empty = {**passed, "trials": [], "events": [], "findings": [], "measures": [], "plan": []}
    empty |= {"comparability": {}, "verdict": "inconclusive"}
    seen = Page(page(empty))

    assert "Nothing was checked, so nothing is proved." in seen.text
    assert "No verdict" in seen.text
    assert (seen.open, seen.crossed) == ([], [])


def test_a_line_of_the_plan_that_cannot_be_read_opens_to_all_of_it(passed):
    """A rule that loses 1 % of the packets lists a hundred numbers, and more are drawn."""
    numbers = ", ".join(map(str, range(0, 900, 3)))
    line = f"   do   [leaf1] nft numgen inc mod 1000 {{ {numbers} }} drop"
    seen = Page(page({**passed, "plan": ["  storm    1 s", line, "  heal     all"]}))

    assert "{ 0, 3, 6, 9, 12, 15, … 294 more } drop" in seen.text
    assert " ".join(line.split()) in seen.text
    plan = page({**passed, "plan": [line]}).partition('id="plan"')[2].partition("</section>")[0]
    assert plan.count("<details>") == 1


def test_a_record_in_memory_gives_the_page_of_its_file(passed):
    again = records.to_json(records.from_json(copy.deepcopy(passed)))

    assert page(again) == page(passed)


def test_half_a_character_does_not_keep_the_page_from_being_written(passed):
    passed["experiment"]["promise"] = "half a pair \ud800"

    assert "half a pair ?" in page(passed).encode().decode()


def test_residue_and_leftovers_stand_out(doubtful):
    seen = Page(page(doubtful))

    assert "leaf1: route 10.0.7.0/31 via eth2 is gone" in seen.text
    assert [a for a in seen.having("bad") if a]


def test_residue_never_compared_is_not_called_nothing(passed):
    for trial in passed["trials"]:
        trial["proof"]["residue"] = None
    told = page(passed)

    assert told.count("<td>not compared</td>") == len(passed["trials"])
    assert "<td>nothing</td>" not in told


def test_false_alarms_are_symptoms_after_the_sham(passed):
    sham = next(t for t in passed["trials"] if t["placebo"])
    windows = sham["windows"]
    base = dict(passed["events"][0], trial=sham["number"], detector="bfd")
    passed["events"] += [
        {**base, "at_ns": windows["event"]["earliest_ns"] - 1},
        {**base, "at_ns": windows["event"]["earliest_ns"]},
        {**base, "at_ns": windows["end_ns"]},
        {**base, "at_ns": windows["end_ns"] + 1},
        {**base, "at_ns": windows["end_ns"], "detector": ""},
    ]

    assert false_alarms(passed) == {"bfd": 2}


def test_thinning_keeps_every_dip():
    """y grows downwards: the largest y of neighbours is the deepest dip."""
    points = [(float(x), 90.0 if x == 7777 else 10.0) for x in range(10_000)]

    few = thinned(points)

    assert len(few) <= MOST_POINTS
    assert (7777.0, 90.0) in few


def test_hosts_stand_below_leaves_below_spines():
    nodes = {"s": "spine", "l": "leaf", "h1": "host", "h2": "host"}
    at = places(nodes, [("s", "l"), ("h1", "l"), ("h2", "l")])

    assert at["s"][1] < at["l"][1] < at["h1"][1] == at["h2"][1]


@pytest.mark.parametrize(
    ("element", "links", "nodes"),
    [
        ("", 0, 0),
        ("leaf1:e1--spine1:e1", 1, 0),
        ("leaf1:e1--spine1:e1, leaf2:e1--spine1:e2", 2, 0),
        ("spine1", 2, 1),
    ],
)
def test_each_broken_element_is_marked_in_the_sketch(element, links, nodes):
    fabric = {
        "name": "f",
        "nodes": {"leaf1": "leaf", "leaf2": "leaf", "spine1": "spine"},
        "links": ["leaf1:e1--spine1:e1", "leaf2:e1--spine1:e2"],
    }
    drawn = str(sketch(fabric, {"element": element, "exposure": {"path": []}}))

    assert len(re.findall(r'<line[^>]*class="wire broken"', drawn)) == links
    assert len(re.findall(r'class="node \w+ broken"', drawn)) == nodes


def test_markup_escapes_what_is_no_markup():
    assert tag("p", "<b>", Markup("<i></i>"), title='"') == '<p title="&quot;">&lt;b&gt;<i></i></p>'
    assert text(None, [1, ["&"]], False) == "1&amp;"
