"""The proof as a value: what is late, and what is left."""

from chaos.change import LinkState, Place
from chaos.proof import LATE_NS, Action, ChangeProof, Proof, late
from chaos.timeline import Moment

ONE, TWO = LinkState(Place("h1", "eth1")), LinkState(Place("h1", "eth2"))
IDLE = Moment(0, 0)


def test_an_action_is_late_by_itself_not_because_another_took_long():
    slow = 5 * LATE_NS
    actions = (
        Action(1000, 1010, 1010 + slow, "do", 0),
        Action(1000, 1020 + slow, 1030 + slow, "do", 1),  # waited for the first
        Action(10 * slow, 10 * slow + 2 * LATE_NS, 10 * slow + 3 * LATE_NS, "undo", 1),
    )
    assert late(actions, (ONE, TWO)) == ("h1:eth2: admin down: taken back 2.0 ms late",)


def test_two_who_act_side_by_side_do_not_wait_for_each_other():
    """Switches, each in a thread of its own: what came late there was not waiting for the first."""
    slow = 5 * LATE_NS
    actions = (
        Action(1000, 1010, 1010 + slow, "do", 0),
        Action(1000, 1020 + slow, 2 * slow, "do", 1),
    )
    assert late(actions, (ONE, TWO), in_turn=False) == (
        "h1:eth2: admin down: brought into force 5.0 ms late",
    )


def test_a_proof_is_dated_by_the_first_do_and_the_last_undo():
    actions = (
        Action(10, 11, 12, "do", 0),
        Action(20, 21, 22, "undo", 0),
        Action(30, 31, 32, "do", 0),
        Action(40, 41, 42, "undo", 0),
    )
    proof = Proof.of((), actions)
    assert (proof.event, proof.healed) == (Moment(11, 12), Moment(41, 42))

    nothing = Proof.of((), (), trouble=["died"])
    assert nothing.event == nothing.healed != IDLE
    assert nothing.trouble == ("died",)


def test_a_leftover_is_told_with_its_cure():
    left = ChangeProof(ONE, True, 1, 1, taken_back=False, leftover="ip link set eth1 up")
    proof = Proof((left, ChangeProof(TWO, True, 1, 1, taken_back=True)), (), IDLE, IDLE)
    assert not proof.taken_back
    assert proof.leftovers == ("h1:eth1: admin down: still in force; cure: ip link set eth1 up",)
