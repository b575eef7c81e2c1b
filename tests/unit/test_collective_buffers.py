"""The tensors of the collective worker: right values pass, any wrong one is found and explained."""

import pytest

torch = pytest.importorskip("torch", reason="collective needs torch: pip install railbreak[job]")

from probes.jobs.collective_buffers import Buffers  # noqa: E402
from probes.jobs.collective_errors import kind_of  # noqa: E402
from probes.jobs.collective_values import OPS, Layout  # noqa: E402

pytestmark = pytest.mark.job
WORLD = 3


def after(op, i, flags=(False,) * WORLD, elements=30_000):
    """Buffers of every rank as the operation `op` would leave them, moved here by hand."""
    layout = Layout(op, WORLD, elements)
    every = [Buffers(layout, rank) for rank in range(WORLD)]
    for buffers, flag in zip(every, flags, strict=True):
        buffers.fill(i, flag)
    put = [buffers._in.clone() for buffers in every]
    width = layout.chunk + 1
    for rank, buffers in enumerate(every):
        if op == "all_reduce":
            left = sum(put)
        elif op == "broadcast":
            left = put[layout.root(i)]
        elif op == "all_gather":
            left = torch.cat(put)
        elif op == "reduce_scatter":
            left = sum(put)[rank * width : (rank + 1) * width]
        else:
            left = torch.cat([p[rank * width : (rank + 1) * width] for p in put])
        buffers._out.copy_(left)
    return every


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("i", [0, 1, 500])
def test_right_values_pass_both_checks(op, i):
    for buffers in after(op, i):
        assert buffers.check_all(i) is None
        assert buffers.check_some(i) is None
        assert not buffers.flagged()


@pytest.mark.parametrize("op", OPS)
def test_any_single_wrong_value_is_found(op):
    for index in (0, 1, 777, 4000):
        buffers = after(op, 5)[1]
        right = float(buffers._out[index])
        buffers.spoil(index)
        found = buffers.check_all(5)
        assert (found.count, found.index, found.expected, found.got) == (1, index, right, right + 1)


@pytest.mark.parametrize("op", OPS)
def test_a_sample_finds_a_stale_buffer(op):
    old = after(op, 5)[1]
    assert old.check_some(6) is not None
    assert old.check_some(6).count == old.check_some(6).count > 1


def test_a_sample_finds_a_chunk_that_was_shifted():
    buffers = after("all_reduce", 5)[0]
    buffers._out[1000:20_000] = buffers._out[1001:20_001].clone()
    assert buffers.check_some(5) is not None


@pytest.mark.parametrize("op", OPS)
def test_one_flag_reaches_every_rank_and_is_no_wrong_value(op):
    i = 4
    flags = [False] * WORLD
    flags[Layout(op, WORLD, 100).root(i)] = True
    for buffers in after(op, i, flags):
        assert buffers.flagged()
        assert buffers.check_all(i) is None


def test_the_hash_tells_outputs_apart_by_value_and_by_place():
    one, other = after("all_reduce", 9)[:2]
    assert one.hash() == other.hash()
    one.spoil(10)
    assert one.hash() != other.hash()
    one, other = after("all_reduce", 9)[:2]
    swapped = one._out[100:104].clone()
    one._out[100:102], one._out[102:104] = swapped[2:], swapped[:2]
    assert one.hash() != other.hash()


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("[…pair.cc:537] Read error [10.77.3.2]:5313: Connection reset by peer.", "conn_reset"),
        ("[…pair.cc:553] Connection closed by peer [10.77.1.2]:64908.", "conn_closed"),
        ("Timed out waiting 10000ms for recv operation to complete", "op_dead"),
        ("Application timeout caused pair closure", "conn_closed"),
        ("Read error: Connection timed out", "conn_timeout"),
        ("Network is unreachable", "unreachable"),
        ("Gloo connectFullMesh failed with …", "init"),
        ("anything else", "other"),
    ],
)
def test_errors_are_classed_by_the_librarys_words(words, kind):
    assert kind_of(words) == kind
