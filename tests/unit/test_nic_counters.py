"""Names of counters on real outputs; growth between looks, and what must not become a number."""

from pathlib import Path

import pytest

from chaos.timeline import Moment, Windows
from probes.jobs.nic_counters import rdma_counters
from probes.nic_counters import NicCounters
from probes.nic_names import QUANTITIES, wanted

DATA = Path(__file__).resolve().parents[1] / "data" / "probes" / "ethtool"
S = 10**9
WINDOWS = Windows((0, 10 * S), Moment(10 * S, 10 * S + 5), Moment(12 * S, 12 * S + 5), 15 * S)


def recorded(name):
    lines = (DATA / name).read_text().splitlines()
    pairs = (line.strip().rpartition(": ") for line in lines if not line.startswith("NIC"))
    return {key: int(value) for key, _, value in pairs}


def quantities(counters, source):
    found = {one.measure: one.of(counters) for one in QUANTITIES if one.source == source}
    return {measure: got for measure, got in found.items() if got is not None}


@pytest.mark.parametrize(
    ("file", "there"),
    [
        (
            "mlx5-cx4lx.txt",
            {
                "nic_rx_discards_packets": (0, ("rx_discards_phy",)),
                "nic_rx_out_of_buffer_packets": (0, ("rx_out_of_buffer",)),
                "nic_pause_received_count": (0, ("rx_pause_ctrl_phy",)),
                "nic_pause_sent_count": (1266552, ("tx_pause_ctrl_phy",)),
            },
        ),
        (
            "ice-e810.txt",
            {
                f"nic_pause_{way}_count": (
                    0,
                    tuple(f"{short}_priority_{n}_xoff.nic" for n in range(8)),
                )
                for way, short in (("received", "rx"), ("sent", "tx"))
            },
        ),
        (
            "ixgbe-82599.txt",
            {
                "nic_rx_discards_packets": (0, ("rx_missed_errors",)),
                "nic_rx_out_of_buffer_packets": (0, ("rx_no_buffer_count",)),
                "nic_pause_received_count": (0, ("rx_flow_control_xoff",)),
                "nic_pause_sent_count": (0, ("tx_flow_control_xoff",)),
            },
        ),
        (
            "be2net.txt",
            {
                "nic_crc_errors_count": (0, ("rx_crc_errors",)),
                "nic_rx_discards_packets": (0, ("rx_drops_no_pbuf", "rx_input_fifo_overflow_drop")),
                "nic_pause_received_count": (0, ("rx_pause_frames",)),
                "nic_pause_sent_count": (0, ("tx_pauseframes", "tx_priority_pauseframes")),
            },
        ),
    ],
)
def test_real_outputs_are_named(file, there):
    assert quantities(recorded(file), "ethtool") == there


def test_soft_roce_is_named():
    found = {name: n for name, (n, _) in quantities(recorded("rxe.txt"), "rdma").items()}
    assert found == {
        "rdma_out_of_sequence_count": 11,
        "rdma_sequence_errors_count": 9,
        "rdma_local_ack_timeouts_count": 5,
        "rdma_retries_exceeded_count": 1,
        "rdma_duplicate_requests_count": 3,
    }


def test_only_what_is_known_travels():
    counters = recorded("mlx5-cx4lx.txt")
    assert "rx_steer_missed_packets" not in wanted("ethtool", counters)
    assert quantities(wanted("ethtool", counters), "ethtool") == quantities(counters, "ethtool")


def test_rdma_counters_are_read_from_sysfs(tmp_path):
    for name, value in (("hw_counters/out_of_sequence", "7\n"), ("counters/port_rcv_data", "9\n")):
        file = tmp_path / "mlx5_0" / "ports" / "1" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value)
    (tmp_path / "mlx5_0/ports/1/hw_counters/lifespan").write_text("no number\n")
    assert rdma_counters(tmp_path) == {"mlx5_0/1": {"out_of_sequence": 7, "port_rcv_data": 9}}


def looks(*values, port="eth1", name="tx_pause_ctrl_phy"):
    """A record per look: second, value."""
    return [
        {
            "ev": "counters",
            "t": at * S,
            "n": n,
            "node": "h1",
            "port": port,
            "source": "ethtool",
            "values": {name: value},
        }
        for n, (at, value) in enumerate(values, 2)
    ]


def pauses(records, windows=WINDOWS):
    readings = NicCounters().read({"reader": [{"ev": "ready", "t": 0, "n": 1}, *records]})
    found = {measure.name: measure for measure in NicCounters().measures(readings, windows)}
    return found["nic_pause_sent_count"], readings


def test_growth_spans_the_look_before_the_fault_and_its_bound_begins_after():
    measure, readings = pauses(looks((8, 100), (9, 103), (11, 110), (14, 150), (16, 900)))
    assert (measure.value, measure.low, measure.high) == (47.0, 40.0, 47.0)
    assert "tx_pause_ctrl_phy" in measure.note
    assert "h1:eth1 47" in measure.note
    assert [series.element for series in readings.series] == ["h1:eth1"]


def test_a_counter_that_began_anew_is_no_number():
    measure, _ = pauses(looks((9, 103), (11, 2), (14, 5)))
    assert measure.value is None
    assert "began anew on h1:eth1" in measure.note


def test_a_driver_that_changed_its_names_is_no_number():
    measure, _ = pauses(looks((9, 1)) + looks((11, 5), (14, 6), name="tx_pause"))
    assert measure.value is None


def test_a_port_without_the_counter_is_absent_and_not_zero():
    measure, _ = pauses(looks((9, 1), (14, 1), name="rx_discards_phy"))
    assert (measure.value, measure.n) == (None, 0)


def test_a_counter_that_stood_still_is_a_zero():
    measure, _ = pauses(looks((9, 5), (14, 5)))
    assert (measure.value, measure.n) == (0.0, 1)


def test_ports_are_added_up_and_those_that_grew_are_named():
    more = looks((9, 0), (14, 4), port="eth2")
    measure, _ = pauses(looks((9, 5), (14, 5)) + more)
    assert (measure.value, measure.n) == (4.0, 2)
    assert "h1:eth2 4" in measure.note
    assert "h1:eth1" not in measure.note
