"""The hands on real namespaces: they act on time, prove it, and heal whoever dies."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos import recover, snapshot
from chaos.change import LinkState, PacketDrop, Place, ProcessSignal
from chaos.errors import ApplyError, BlockedError, FabricError, SpecError
from chaos.hands import Hands
from chaos.journal import read
from chaos.native import process_state
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration
from tests.waiting import wait_until

pytestmark = pytest.mark.netns

MS = 1_000_000
ADMIN = LinkState(Place("h1", "eth1"))
CARRIER = LinkState(Place("h1", "eth1", "wire"))
DROP = PacketDrop(Place("h1", "eth1", "wire"), "railbreak_test_hands")


async def armed(two_hosts, *changes, life="30 s"):
    return await Hands.arm(
        changes,
        two_hosts.wheres(changes),
        journal=two_hosts.folder / "journal.jsonl",
        max_life=Duration.parse(life),
        log_dir=two_hosts.folder,
    )


def state(two_hosts):
    return snapshot.take(two_hosts.namespaces)


async def left_of(two_hosts, before, deadline_s=5.0):
    return await snapshot.settle(two_hosts.namespaces, before, deadline_s)


def journalled(two_hosts):
    return [entry.history for entry in read(two_hosts.folder / "journal.jsonl")]


def test_arming_changes_nothing_and_healing_right_away_is_clean(two_hosts):
    async def go():
        before = state(two_hosts)
        hands = await armed(two_hosts, ADMIN, DROP)
        assert snapshot.difference(before, state(two_hosts)) == ()
        proof = await hands.heal()
        await hands.close()
        assert not proof.in_force
        assert proof.taken_back
        assert proof.actions == ()
        assert await left_of(two_hosts, before) == ()

    asyncio.run(go())


def test_a_span_is_done_proved_counted_and_taken_back(two_hosts):
    async def go():
        before = state(two_hosts)
        assert await asyncio.to_thread(two_hosts.ping) == 3  # the neighbours know each other
        hands = await armed(two_hosts, DROP)
        t0 = now_ns() + 20 * MS
        await hands.start(t0, [InForce(0, 600 * MS)])
        await asyncio.to_thread(wait_for, lambda: hands.actions, 5, "the first action")
        answered = await asyncio.to_thread(two_hosts.ping)
        live = await hands.hits()
        await hands.wait()
        proof = await hands.heal()
        assert await hands.heal() is proof
        await hands.close()
        return before, t0, answered, live, proof

    before, t0, answered, live, proof = asyncio.run(go())
    (change,) = proof.changes
    assert answered == 0
    assert live[0].hit >= 3
    assert change.in_force
    assert change.taken_back
    assert change.hit >= live[0].hit
    assert change.seen == change.hit
    assert [one.kind for one in proof.actions] == ["do", "undo"]
    assert [one.planned_ns - t0 for one in proof.actions] == [0, 600 * MS]
    for one in proof.actions:
        assert one.planned_ns <= one.before_ns < one.acknowledged_ns
    assert (proof.event.earliest_ns, proof.healed.earliest_ns) == tuple(
        one.before_ns for one in proof.actions
    )
    assert two_hosts.reaches()
    assert journalled(two_hosts) == [("intended", "in_force", "acted", "taken_back")]
    assert asyncio.run(left_of(two_hosts, before)) == ()


@pytest.mark.parametrize(
    ("turns", "down_ms", "up_ms"), [(30, 5, 5), (10, 20, 5)], ids=["100 Hz", "40 Hz"]
)
def test_a_flap_makes_exactly_the_planned_carrier_changes(two_hosts, turns, down_ms, up_ms):
    """Carrier changes are the kernel's own count, at both the cut end and the node's."""
    spans = [
        InForce(at * (down_ms + up_ms) * MS, (at * (down_ms + up_ms) + down_ms) * MS)
        for at in range(turns)
    ]

    def counted():
        return int(two_hosts.run("h1", "cat", "/sys/class/net/eth1/carrier_changes"))

    def carriers(node, port):
        told = json.loads(two_hosts.run(node, "ip", "-s", "-s", "-j", "-d", "link", "show", port))
        return told[0]

    async def go():
        hands = await armed(two_hosts, CARRIER)
        await hands.start(now_ns() + 20 * MS, spans)
        await hands.wait()
        proof = await hands.heal()
        await hands.close()
        return proof

    assert "NO-CARRIER" not in carriers("h1", "eth1")["flags"]
    proof = asyncio.run(go())
    assert len(proof.actions) == 2 * turns
    assert proof.changes[0].seen == 2 * turns
    assert proof.changes[0].hit == turns
    assert proof.taken_back
    assert two_hosts.reaches()


def test_an_admin_flap_keeps_static_routes(two_hosts):
    two_hosts.run("h1", "ip", "route", "add", "10.9.0.0/16", "via", "10.0.0.2")
    two_hosts.run("h1", "ip", "-6", "route", "add", "2001:db8:9::/48", "via", "2001:db8:0::2")

    async def go():
        before = state(two_hosts)
        hands = await armed(two_hosts, ADMIN)
        spans = [InForce(at * 10 * MS, (at * 10 + 5) * MS) for at in range(20)]
        await hands.start(now_ns() + 20 * MS, spans)
        await hands.wait()
        proof = await hands.heal()
        await hands.close()
        assert proof.taken_back
        assert proof.changes[0].hit == 20
        assert await left_of(two_hosts, before) == ()

    asyncio.run(go())


# ---- refused before the deed --------------------------------------------------------------------


@pytest.mark.parametrize("journal", ["/dev/full", "{folder}/file/journal.jsonl"])
def test_no_journal_no_fault(two_hosts, journal):
    (two_hosts.folder / "file").write_text("in the way")
    before = state(two_hosts)

    async def go():
        with pytest.raises(BlockedError, match=r"cannot be written .*; nothing was broken"):
            await Hands.arm(
                [ADMIN, DROP],
                two_hosts.wheres([ADMIN, DROP]),
                journal=Path(journal.format(folder=two_hosts.folder)),
                max_life=Duration.parse("1 s"),
                log_dir=two_hosts.folder,
            )

    asyncio.run(go())
    assert snapshot.difference(before, state(two_hosts)) == ()


def test_two_changes_that_cannot_be_told_apart_are_refused(two_hosts):
    with pytest.raises(SpecError, match=r"could not be told apart .*h1:eth1: admin down"):
        asyncio.run(armed(two_hosts, ADMIN, ADMIN))


@pytest.mark.parametrize("change", [ADMIN, DROP], ids=["link", "table"])
def test_what_is_in_force_already_is_not_ours_to_take_back(two_hosts, change):
    async def go():
        first = await armed(two_hosts, change)
        await first.start(now_ns(), [InForce(0, 10_000 * MS)])
        until = time.monotonic() + 5
        while (await first.hits())[0].hit is None or not recover.in_force(
            [two_hosts.folder / "journal.jsonl"]
        )[0].in_force:
            assert time.monotonic() < until
        with pytest.raises(BlockedError, match=r"already"):
            await armed(two_hosts, change)
        proof = await first.heal()
        await first.close()
        assert proof.taken_back

    asyncio.run(go())


def test_a_replaced_namespace_is_refused(two_hosts):
    from dataclasses import replace

    where = replace(two_hosts.resolve(ADMIN.place), inode=1)

    async def go():
        with pytest.raises(FabricError, match=r"gone or was replaced"):
            await Hands.arm(
                [ADMIN],
                {ADMIN.place: where},
                journal=two_hosts.folder / "journal.jsonl",
                max_life=Duration.parse("1 s"),
                log_dir=two_hosts.folder,
            )

    asyncio.run(go())


def test_a_schedule_beyond_the_maximum_life_is_refused(two_hosts):
    async def go():
        hands = await armed(two_hosts, ADMIN, life="1 s")
        with pytest.raises(BlockedError, match=r"ends after 2 s, but .* 1 s at most"):
            await hands.start(now_ns(), [InForce(0, 2_000 * MS)])
        await hands.close()

    asyncio.run(go())


def test_a_change_that_cannot_be_made_takes_back_the_others(two_hosts):
    """The second table names an expression that nftables does not know."""
    bad = PacketDrop(Place("h2", "eth1", "wire"), "railbreak_test_bad", match="no such thing")

    async def go():
        before = state(two_hosts)
        hands = await armed(two_hosts, ADMIN, bad)
        await hands.start(now_ns(), [InForce(0, 5_000 * MS)])
        with pytest.raises(ApplyError, match=r"nftables refused.*everything was taken back"):
            await hands.wait()
        proof = await hands.heal()
        await hands.close()
        assert proof.taken_back
        assert await left_of(two_hosts, before) == ()

    asyncio.run(go())


# ---- whoever dies -------------------------------------------------------------------------------

CONTROLLER = """
import asyncio, json, sys
from pathlib import Path
from chaos.change import Place, Where, from_json
from chaos.hands import Hands
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration

async def main(told):
    changes = [from_json(one) for one in told["changes"]]
    wheres = {one.place: Where(**where) for one, where in zip(changes, told["wheres"])}
    folder = Path(told["folder"])
    print("arming", flush=True)
    hands = await Hands.arm(changes, wheres, journal=folder / "journal.jsonl",
                            max_life=Duration.parse(told["life"]), log_dir=folder)
    print("armed", hands.pid, flush=True)
    await hands.start(now_ns(), [InForce(*span) for span in told["spans"]])
    print("started", flush=True)
    await hands.wait()
    await hands.heal()
    await hands.close()
    print("closed", flush=True)

asyncio.run(main(json.loads(sys.argv[1])))
"""


class Controller:
    """A controller in a process of its own, so that it can be killed."""

    def __init__(self, two_hosts, changes, spans=((0, 20_000 * MS),), life="30 s"):
        from dataclasses import asdict

        from chaos.change import to_json

        told = {
            "changes": [to_json(change) for change in changes],
            "wheres": [asdict(two_hosts.resolve(change.place)) for change in changes],
            "folder": str(two_hosts.folder),
            "spans": spans,
            "life": life,
        }
        self.process = subprocess.Popen(
            (sys.executable, "-c", CONTROLLER, json.dumps(told)),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def until(self, word):
        for line in self.process.stdout:
            if line.startswith(word):
                return line.split()
        raise AssertionError(f"the controller never said {word}")

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        self.process.wait()
        self.process.stdout.close()


def wait_for(condition, seconds, what):
    wait_until(condition, what, seconds)


def in_force(two_hosts):
    return recover.in_force([two_hosts.folder / "journal.jsonl"])


def gone(pid):
    return process_state(pid)[0] in ("", "Z")


@pytest.mark.slow
def test_a_killed_controller_is_healed_within_a_second(two_hosts):
    """At fifty random moments, from before arming to deep in a flap; half of them in the flap."""
    two_hosts.run("h1", "ip", "route", "add", "10.9.0.0/16", "via", "10.0.0.2")
    before = state(two_hosts)
    rng = random.Random(50)
    flap = [(at * 20 * MS, (at * 20 + 10) * MS) for at in range(500)]
    struck, journal = 0, two_hosts.folder / "journal.jsonl"
    for turn in range(50):
        controller = Controller(two_hosts, [ADMIN, DROP], spans=flap)
        controller.until("started" if turn % 2 else "arming")
        time.sleep(rng.uniform(0, 0.6))
        controller.kill()
        wait_for(lambda: not journal.exists() or not in_force(two_hosts), 1.0, "status is clean")
        assert asyncio.run(left_of(two_hosts, before, 1.0)) == ()
        struck += journal.exists() and any("in_force" in one for one in journalled(two_hosts))
        journal.unlink(missing_ok=True)
    assert struck >= 10, "too few kills found the fault in force to mean anything"


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_heals_and_a_second_one_does_not_stop_it(two_hosts, number, twice):
    before = state(two_hosts)
    controller = Controller(two_hosts, [ADMIN, DROP])
    pid = int(controller.until("armed")[1])
    controller.until("started")
    wait_for(lambda: all(one.in_force for one in in_force(two_hosts)), 5, "in force")

    os.kill(pid, number)
    if twice:
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: gone(pid), 5, "the injector leaves")
    controller.kill()

    assert in_force(two_hosts) == []
    assert asyncio.run(left_of(two_hosts, before)) == ()


def test_ctrl_c_in_the_terminal_reaches_the_controller_only(two_hosts):
    """The injector has a session of its own: it heals because its owner ends, in its own time."""
    controller = Controller(two_hosts, [ADMIN])
    pid = int(controller.until("armed")[1])
    controller.until("started")
    assert os.getsid(pid) != os.getsid(controller.process.pid)
    assert os.getpgid(pid) != os.getpgid(controller.process.pid)
    controller.kill()
    wait_for(lambda: gone(pid), 5, "the injector leaves")


def test_a_controller_whose_pipe_leaked_is_still_missed(two_hosts):
    """A forked child holds the write end of the pipe; the owner's pidfd tells nevertheless."""
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    owner = subprocess.Popen(("sleep", "1000"))
    from dataclasses import asdict

    from chaos.change import to_json

    injector = subprocess.Popen(
        (sys.executable, "-m", "chaos.injector", str(owner.pid)),
        stdin=read_end,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    os.close(read_end)
    arm = {
        "cmd": "arm",
        "changes": [to_json(DROP)],
        "wheres": [asdict(two_hosts.resolve(DROP.place))],
        "journal": str(two_hosts.folder / "journal.jsonl"),
        "max_life_ns": 10**11,
    }
    start = {"cmd": "start", "t0_ns": now_ns(), "spans": [[0, 10**10]]}
    for command in (arm, start):
        os.write(write_end, json.dumps(command).encode() + b"\n")
    wait_for(
        lambda: (
            (two_hosts.folder / "journal.jsonl").exists()
            and any(one.in_force for one in in_force(two_hosts))
        ),
        5,
        "in force",
    )
    owner.kill()
    owner.wait()
    wait_for(lambda: in_force(two_hosts) == [], 1, "healed")
    os.close(write_end)
    injector.stdout.close()
    assert injector.wait() == 0


def test_the_maximum_life_ends_a_fault_that_nobody_ends(two_hosts):
    """The controller is stopped, so neither its pipe closes nor does it end."""
    controller = Controller(two_hosts, [ADMIN, DROP], spans=[(0, 900 * MS)], life="1 s")
    pid = int(controller.until("armed")[1])
    controller.until("started")
    controller.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: gone(pid), 5, "the injector's life is over")
    assert in_force(two_hosts) == []
    controller.kill()


def test_undo_after_everybody_died(two_hosts):
    two_hosts.run("h1", "ip", "route", "add", "10.9.0.0/16", "via", "10.0.0.2")
    two_hosts.run("h1", "ip", "neigh", "add", "10.0.0.9", "lladdr", "02:00:00:00:00:09",
                  "dev", "eth1", "nud", "permanent")  # fmt: skip
    stopped = two_hosts.start("rank0")
    before = state(two_hosts)
    journal = two_hosts.folder / "journal.jsonl"
    stop = ProcessSignal(Place("h1", process="rank0"))
    controller = Controller(two_hosts, [ADMIN, DROP, stop])
    pid = int(controller.until("armed")[1])
    controller.until("started")
    wait_for(lambda: all(one.in_force for one in in_force(two_hosts)), 5, "in force")
    os.kill(controller.process.pid, signal.SIGSTOP)  # it must not see the injector die
    os.kill(pid, signal.SIGKILL)
    controller.kill()

    assert [one.in_force for one in in_force(two_hosts)] == [True, True, True]
    wait_for(lambda: not any(one.held for one in in_force(two_hosts)), 5, "its death to be over")
    assert snapshot.difference(before, state(two_hosts)) != ()
    assert process_state(stopped.pid)[0] == "T"

    found = recover.undo([journal])

    assert [one.outcome for one in found] == ["taken_back"] * 3
    assert [one.entry.change for one in found] == [stop, DROP, ADMIN], "the last first"
    assert in_force(two_hosts) == []
    assert recover.undo([journal]) == []
    wait_for(lambda: process_state(stopped.pid)[0] == "S", 5, "it to sleep again")
    assert asyncio.run(left_of(two_hosts, before)) == ()


def test_undo_of_a_living_run_lets_its_injector_heal(two_hosts):
    controller = Controller(two_hosts, [ADMIN])
    pid = int(controller.until("armed")[1])
    controller.until("started")
    wait_for(lambda: all(one.in_force for one in in_force(two_hosts)), 5, "in force")

    (undone,) = recover.undo([two_hosts.folder / "journal.jsonl"])

    assert undone.outcome == "taken_back"
    assert "injector" in undone.reason
    assert gone(pid)
    controller.kill()


def test_an_injector_that_is_told_to_end_says_so_and_what_became_of_its_changes(two_hosts):
    async def go():
        hands = await armed(two_hosts, ADMIN, DROP)
        await hands.start(now_ns(), [InForce(0, 10_000 * MS)])
        await hands.hits()
        os.kill(hands.pid, signal.SIGTERM)  # as `railbreak undo` does
        with pytest.raises(FabricError, match=r"told to by SIGTERM, .*; everything was taken back"):
            await hands.wait()
        await hands.close()

    asyncio.run(go())


def test_a_killed_injector_is_replaced_by_its_owner(two_hosts):
    async def go():
        before = state(two_hosts)
        hands = await armed(two_hosts, ADMIN, DROP)
        await hands.start(now_ns(), [InForce(0, 10_000 * MS)])
        await hands.hits()
        os.kill(hands.pid, signal.SIGKILL)
        with pytest.raises(FabricError, match=r"the injector ended: it died"):
            await hands.wait()
        proof = await hands.heal()
        await hands.close()
        assert proof.taken_back
        assert proof.leftovers == ()
        assert "replayed" in proof.trouble[0]
        assert await left_of(two_hosts, before) == ()

    asyncio.run(go())


def test_a_namespace_that_is_gone_took_its_change_along(two_hosts):
    controller = Controller(two_hosts, [ADMIN])
    pid = int(controller.until("armed")[1])
    controller.until("started")
    os.kill(controller.process.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    controller.kill()
    wait_for(lambda: gone(pid), 5, "the injector to die")
    subprocess.run(["ip", "netns", "del", f"{two_hosts.prefix}h1"], check=True)

    assert in_force(two_hosts) == []
    (undone,) = recover.undo([two_hosts.folder / "journal.jsonl"])
    assert undone.outcome == "gone"
    assert "is no more" in undone.reason


def test_closing_without_healing_heals(two_hosts):
    """What an exception in the controller does: the pipe closes, and nothing else."""

    async def go():
        before = state(two_hosts)
        hands = await armed(two_hosts, ADMIN, DROP)
        await hands.start(now_ns(), [InForce(0, 20_000 * MS)])
        await asyncio.to_thread(wait_for, lambda: len(hands.actions) == 2, 5, "both are done")
        await asyncio.wait_for(hands.close(), 5)
        assert in_force(two_hosts) == []
        assert await left_of(two_hosts, before) == ()

    asyncio.run(go())


# ---- loud ---------------------------------------------------------------------------------------


def test_a_failed_undo_names_its_cure_and_does_not_stop_the_others(two_hosts):
    """The address behind which a static route lies is taken away in mid-fault."""
    two_hosts.run("h1", "ip", "route", "add", "10.9.0.0/16", "via", "10.0.0.2")
    journal = two_hosts.folder / "journal.jsonl"

    async def go():
        hands = await armed(two_hosts, DROP, ADMIN)
        await hands.start(now_ns(), [InForce(0, 10_000 * MS)])
        await hands.hits()
        two_hosts.run("h1", "ip", "addr", "del", "10.0.0.1/24", "dev", "eth1")
        proof = await hands.heal()
        await hands.close()
        return proof

    proof = asyncio.run(go())
    drop, admin = proof.changes
    assert drop.taken_back
    assert not admin.taken_back
    assert "ip -4 route append 10.9.0.0/16" in admin.leftover
    assert f"nsenter --net={two_hosts.path('h1')}" in admin.leftover
    assert journalled(two_hosts)[1][-1] == "leftover"

    two_hosts.run("h1", "ip", "addr", "add", "10.0.0.1/24", "dev", "eth1")
    subprocess.run(admin.leftover, shell=True, check=False, capture_output=True)  # noqa: S602
    assert "10.9.0.0/16" in two_hosts.run("h1", "ip", "route")
    assert [one.outcome for one in recover.undo([journal])] == ["taken_back"]


def test_forgetting_says_what_it_leaves(two_hosts):
    controller = Controller(two_hosts, [DROP])
    pid = int(controller.until("armed")[1])
    controller.until("started")
    wait_for(lambda: all(one.in_force for one in in_force(two_hosts)), 5, "in force")
    os.kill(controller.process.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    controller.kill()

    (left,) = recover.forget(two_hosts.folder / "journal.jsonl")

    assert "railbreak_test_hands" in left.cure
    assert in_force(two_hosts) == []
    assert "railbreak_test_hands" in two_hosts.run("wire", "nft", "list", "tables")


def test_a_fault_that_somebody_else_undoes_is_told(two_hosts):
    async def go():
        hands = await armed(two_hosts, ADMIN)
        await hands.start(now_ns(), [InForce(0, 400 * MS)])
        await hands.hits()
        two_hosts.run("h1", "ip", "link", "set", "eth1", "up")
        await hands.wait()
        proof = await hands.heal()
        await hands.close()
        return proof

    proof = asyncio.run(go())
    assert proof.in_force
    assert "somebody else undid it" in proof.trouble[0]


def test_what_the_kernel_dropped_returns_even_if_somebody_set_the_link_up(two_hosts):
    two_hosts.run("h1", "ip", "route", "add", "10.9.0.0/16", "via", "10.0.0.2")

    async def go():
        before = state(two_hosts)
        hands = await armed(two_hosts, ADMIN)
        await hands.start(now_ns(), [InForce(0, 20_000 * MS)])
        await asyncio.to_thread(wait_for, lambda: hands.actions, 5, "it is done")
        two_hosts.run("h1", "ip", "link", "set", "eth1", "up")
        proof = await hands.heal()
        await hands.close()
        assert proof.taken_back
        assert await left_of(two_hosts, before) == ()

    asyncio.run(go())


def test_an_interface_that_vanished_does_not_stop_the_other_undos(two_hosts):
    """A deleted interface can neither be set up nor read: its undo fails, the first one's not."""

    async def go():
        hands = await armed(two_hosts, DROP, ADMIN)  # undone from the last to the first
        await hands.start(now_ns(), [InForce(0, 20_000 * MS)])
        await asyncio.to_thread(wait_for, lambda: len(hands.actions) == 2, 5, "both are done")
        two_hosts.run("h1", "ip", "link", "del", "eth1")
        proof = await hands.heal()
        await hands.close()
        return proof

    proof = asyncio.run(go())
    drop, admin = proof.changes
    assert proof.trouble == (), "the injector itself coped, nobody had to take its place"
    assert drop.taken_back
    assert not admin.taken_back
    assert "railbreak" not in two_hosts.run("wire", "nft", "list", "tables")


def test_a_stopped_process_runs_again_and_a_killed_one_is_told(two_hosts):
    stopped, killed = two_hosts.start("rank0"), two_hosts.start("rank1")
    stop = ProcessSignal(Place("h1", process="rank0"))
    kill = ProcessSignal(Place("h1", process="rank1"), "KILL")

    async def go():
        hands = await armed(two_hosts, stop, kill)
        await hands.start(now_ns(), [InForce(0, 200 * MS)])
        wait_for(lambda: process_state(stopped.pid)[0] == "T", 5, "stopped")
        await hands.wait()
        proof = await hands.heal()
        await hands.close()
        return proof

    proof = asyncio.run(go())
    assert [(one.in_force, one.hit, one.taken_back) for one in proof.changes] == [
        (True, 1, True),
        (True, 1, True),
    ]
    wait_for(lambda: process_state(stopped.pid)[0] == "S", 5, "it to sleep again")
    assert killed.wait() == -signal.SIGKILL
