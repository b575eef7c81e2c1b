"""What is not ours is told from what is: a process by its birth, a route by protocol and metric."""

import pytest

from chaos import native
from chaos.change import OwnRoute, Place, ProcessSignal, Where
from chaos.changes.route import METRIC, PROTOCOL
from chaos.errors import BlockedError, FabricError
from chaos.natives.process import process_state

pytestmark = pytest.mark.netns

PREFIX = "10.9.0.0/16"
HOLE = OwnRoute(Place("h1"), PREFIX, "blackhole")


@pytest.mark.parametrize("name", ["STOP", "KILL"])
def test_a_process_that_has_the_number_of_another_is_not_signalled(two_hosts, name):
    two_hosts.start("rank0")
    change = ProcessSignal(Place("", process="rank0"), name)
    where = two_hosts.resolve(change.place)
    assert where.pid > 0
    another = Where(pid=where.pid, started=where.started - 1)

    with pytest.raises(FabricError, match=f"process {where.pid} ended before the fault"):
        native.build(change, another)
    assert process_state(where.pid)[0] not in ("T", "Z", "")


def routes(two_hosts):
    return two_hosts.run("h1", "ip", "route", "show", "to", "exact", PREFIX).splitlines()


def test_a_route_that_is_in_force_already_is_not_ours_to_take_back(two_hosts):
    ours = ("proto", str(PROTOCOL), "metric", str(METRIC))
    two_hosts.run("h1", "ip", "route", "add", "blackhole", PREFIX, *ours)

    with pytest.raises(BlockedError, match=r"to 10\.9\.0\.0/16 is there already: a leftover or"):
        native.build(HOLE, two_hosts.resolve(HOLE.place))
    assert len(routes(two_hosts)) == 1


@pytest.mark.parametrize(
    "theirs", [("proto", str(PROTOCOL), "metric", str(METRIC + 1)), ("metric", str(METRIC + 1))]
)
def test_a_route_beside_ours_stays_and_is_not_taken_for_it(two_hosts, theirs):
    two_hosts.run("h1", "ip", "route", "add", "unreachable", PREFIX, *theirs)
    made = native.build(HOLE, two_hosts.resolve(HOLE.place))
    try:
        assert not made.in_force()
        made.do()
        assert (made.in_force(), len(routes(two_hosts))) == (True, 2)
        for _ in range(2):
            assert made.undo() == ()
            assert not made.in_force()
        (left,) = routes(two_hosts)
        assert left.startswith("unreachable")
    finally:
        made.undo()
        made.close()
