"""Several rules on one cable: which of them meets a packet first, and what the others then see.

What nftables does by itself comes before workers. Among equals the rule that came into force last
comes first. What one of them drops or takes along is not seen by those after it.
"""

import contextlib
import time

import pytest

from chaos.roce import Packet
from tests.netns.bench import QUIET_S, made_ready, one_cpu
from tests.netns.frames import V6, data, roce, rule
from tests.waiting import wait_until

pytestmark = pytest.mark.netns

MANY = 600
LAST = (1 << 24) - 1


class Several:
    """`go(rules, frames, arrive)`: what arrived, by number; `counted` per rule, in their order."""

    def __init__(self, bench, ready):
        self.bench, self.ready = bench, ready
        self.counted = []

    def go(self, rules, frames, arrive):
        """The rules come into force one after the other; so many frames arrive, and no more."""
        got = {}
        with contextlib.ExitStack() as stack:
            made = []
            for number, one in enumerate(rules):
                made.append(self.ready(one, f"railbreak_several_{number}"))
                stack.callback(made[-1].close)
                stack.callback(made[-1].undo)
            stack.enter_context(one_cpu())
            for one in made:
                one.do()
            for number, frame in enumerate(frames):
                self.bench.send(number, frame)
                if number % 128 == 127:
                    self.bench.receive(got)

            def all_there():
                self.bench.receive(got)
                return len(got) >= arrive

            wait_until(all_there, lambda: f"{arrive} frames; {len(got)} came")
            for one in reversed(made):
                assert one.undo() == ()
            time.sleep(QUIET_S)
            self.bench.receive(got)
            assert [one.trouble for one in made] == [()] * len(made)
            self.counted = [(one.counted["seen"], one.counted["hit"]) for one in made]
            for one in made:
                assert one.counted["seen"] == one.counted["hit"] + one.counted["passed"]
        assert len(got) == arrive
        return got


@pytest.fixture
def several(bench, two_hosts):
    """Rules between two hosts."""
    return Several(bench, lambda one, table: made_ready(two_hosts, one, table=table))


def left(rules, frames):
    """What remains when each rule drops from what those before it let pass; how many each saw."""
    rest, told = list(range(len(frames))), []
    for one in rules:
        those = [frames[at] for at in rest]
        hit = set(one.hit(those))
        told.append((len(one.seen(those)), len(hit)))
        rest = [at for place, at in enumerate(rest) if place not in hit]
    return rest, told


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ({"when": "every=2"}, {"when": "every=3"}),
        ({"when": "random=10% seed=3"}, {"select": "opcode=middle", "when": "random=10% seed=3"}),
        ({"when": "first=20"}, {"when": "after=500"}),
        ({"select": "psn=100-300"}, {"when": "psn=299"}),
    ],
)
def test_the_rule_that_came_last_is_met_first(several, first, last):
    """Packet by packet: the other's ordinals count what the last let pass."""
    frames = [roce(psn) for psn in range(MANY)]
    rules = [rule(**first), rule(**last)]
    want, told = left(rules[::-1], frames)

    got = several.go(rules, frames, len(want))

    assert sorted(got) == want
    assert several.counted == told[::-1]


@pytest.mark.parametrize("marked_first", [True, False])
def test_a_mark_is_seen_by_those_that_came_before_it(several, marked_first):
    marks, drops = rule(when="every=4", then="ce"), rule(select="ecn=ce")
    rules = [drops, marks] if marked_first else [marks, drops]

    got = several.go(rules, [roce(psn) for psn in range(MANY)], MANY - 150 * marked_first)

    counted = dict(zip(("drops", "marks") if marked_first else ("marks", "drops"),
                       several.counted, strict=True))  # fmt: skip
    assert counted["marks"] == (MANY, 150)
    assert counted["drops"] == ((150, 150) if marked_first else (0, 0))
    assert not marked_first or all(number % 4 != 3 for number in got)


@pytest.mark.parametrize("then", ["delay=5ms", "corrupt=silent", "forge=cnp qp=17", "reorder=1"])
@pytest.mark.parametrize("worker_first", [True, False])
def test_what_is_dropped_is_dropped_before_a_worker_meets_it(several, then, worker_first):
    """Whichever came into force first."""
    held, drops = rule(when="every=2", then=then), rule(when="every=3")
    rules = [held, drops] if worker_first else [drops, held]

    got = several.go(rules, [data(psn).write() for psn in range(MANY)], 400)

    assert sorted(got) == [number for number in range(MANY) if number % 3 != 2]
    counted = several.counted if worker_first else several.counted[::-1]
    assert counted == [(400, 200), (MANY, 200)]


def test_a_packet_is_with_one_worker_alone(several):
    """What the worker that came last takes along goes on from it; the others meet the rest."""
    frames = [data(psn).write() for psn in range(MANY)]
    spoils = rule(when="every=2", then="corrupt=silent")

    def spoilt(got):
        return [number for number in sorted(got) if got[number] != frames[number]]

    slows = rule(when="every=3", then="reorder=1")
    got = several.go([spoils, slows], frames, MANY)
    assert spoilt(got) == [], "who reorders takes all that it means"
    assert several.counted == [(0, 0), (MANY, 200)]

    got = several.go([slows, spoils], frames, MANY)
    assert spoilt(got) == list(range(1, MANY, 2))
    assert several.counted == [(300, 100), (MANY, 300)]
    assert all(Packet.read(got[number]).intact for number in spoilt(got))


def test_numbers_that_come_round_over_ipv6_and_no_other(several):
    """The last and the first sequence number, once each; IPv4's are not touched."""
    psns = [LAST - 1, LAST, 0, 1, LAST, 0, 1]
    frames = [roce(psn, ip=V6) for psn in psns] + [roce(psn) for psn in psns]

    once = rule(select="family=6", when=f"psn=0,{LAST}")
    got = several.go([once], frames, 12)
    assert sorted(set(range(14)) - set(got)) == [1, 2]
    assert several.counted == [(7, 2)]

    ranges = rule(select=f"source=2001:db8::/64 psn=0,{LAST - 1}-{LAST}")
    got = several.go([ranges], frames, 9)
    assert sorted(set(range(14)) - set(got)) == [0, 1, 2, 4, 5]
