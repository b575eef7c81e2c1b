"""Which counters of which driver mean what: a table, its sources, the choice between names. Pure.

Sources: for `mlx5_core` the kernel's documentation (device_drivers/ethernet/mellanox/mlx5/
counters.rst); for others the tables of names in their sources: `bnxt_en` bnxt_ethtool.c, `ice`
ice_ethtool.c, `i40e` i40e_ethtool.c, `ixgbe`, `igb` and `e1000e` *_ethtool.c, `mlx4_en` en_port.c,
`be2net` be_ethtool.c; RDMA: mlx5 counters.c, bnxt_re hw_counters.c, rxe rxe_hw_counters.c. The
floor, `link`, is what every interface of Linux has: IFLA_STATS64.

For each quantity the first way of a source that a port has is taken, and only that one: a driver's
total and its parts per priority are never added up. What a port has by no name is absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: Fields of `struct rtnl_link_stats64`, in its order, as far as they are used.
LINK = (
    "rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors",
    "rx_dropped", "tx_dropped", "multicast", "collisions", "rx_length_errors", "rx_over_errors",
    "rx_crc_errors", "rx_frame_errors", "rx_fifo_errors", "rx_missed_errors",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quantity:
    """One quantity and the names it goes by.

    Attributes:
        measure: Name of the measure.
        words: What it is.
        source: `link`, `ethtool` or `rdma`.
        ways: Patterns; the counters that match the first one that matches any are added up.
    """

    measure: str
    words: str
    source: str
    ways: tuple[str, ...]

    def of(self, counters: Mapping[str, int]) -> tuple[int, tuple[str, ...]] | None:
        """The quantity of one port and the counters it is made of; None where it has none.

        Examples:
            >>> sent = next(one for one in QUANTITIES if one.measure == "nic_pause_sent_count")
            >>> sent.of({"tx_pause_ctrl_phy": 7, "tx_prio3_pause": 7})
            (7, ('tx_pause_ctrl_phy',))
            >>> sent.of({"tx_priority_3_xoff.nic": 2, "link_xoff_tx.nic": 1})
            (3, ('link_xoff_tx.nic', 'tx_priority_3_xoff.nic'))
            >>> sent.of({"rx_packets": 1}) is None
            True
        """
        for way in self.ways:
            names = sorted(name for name in counters if re.fullmatch(way, name))
            if names:
                return sum(counters[name] for name in names), tuple(names)
        return None


QUANTITIES = (
    Quantity("nic_kernel_dropped_packets", "packets the kernel counts as dropped at the ports, "
             "both directions", "link", ("[rt]x_dropped",)),
    Quantity("nic_kernel_errors_count", "errors the kernel counts at the ports, both directions",
             "link", ("[rt]x_errors",)),
    Quantity("nic_rx_discards_packets", "received packets that NICs threw away for want of room",
             "ethtool", (
                 "rx_discards_phy",            # mlx5
                 "rx_stat_discard",            # bnxt_en
                 r"rx_dropped\.nic",           # ice
                 r"port\.rx_dropped",          # i40e
                 "rx_missed_errors",           # ixgbe, igb, e1000e
                 "rx_input_fifo_overflow_drop|rx_drops_no_pbuf",  # be2net
             )),
    Quantity("nic_rx_out_of_buffer_packets", "received packets for which no buffer was posted",
             "ethtool", ("rx_out_of_buffer", "rx_no_buffer_count")),
    Quantity("nic_pause_received_count", "pause frames received, 802.3x and PFC", "ethtool", (
        "rx_pause_ctrl_phy",                                   # mlx5
        r"rx_global_pause|rx_prio\d_pause",                    # mlx5, older
        "rx_(pause|pfc)_frames",                               # bnxt_en
        r"link_xoff_rx\.nic|rx_priority_\d_xoff\.nic",         # ice
        r"port\.(link_xoff_rx|rx_priority_\d_xoff)",           # i40e
        r"rx_flow_control_xoff|rx_pb_\d_pxoff",                # ixgbe, igb, e1000e
        "rx_pause|rx_pause_frames|rx_priority_pause_frames",   # mlx4_en, be2net
    )),
    Quantity("nic_pause_sent_count", "pause frames sent, 802.3x and PFC", "ethtool", (
        "tx_pause_ctrl_phy",
        r"tx_global_pause|tx_prio\d_pause",
        "tx_(pause|pfc)_frames",
        r"link_xoff_tx\.nic|tx_priority_\d_xoff\.nic",
        r"port\.(link_xoff_tx|tx_priority_\d_xoff)",
        r"tx_flow_control_xoff|tx_pb_\d_pxoff",
        "tx_pause|tx_pauseframes|tx_priority_pauseframes",
    )),
    Quantity("nic_crc_errors_count", "frames received with a wrong checksum", "ethtool", (
        "rx_crc_errors_phy", "rx_fcs_err_frames", r"rx_crc_errors\.nic", r"port\.rx_crc_errors",
        "rx_crc_errors",
    )),
    Quantity("rdma_out_of_sequence_count", "RoCE packets that came out of order", "rdma",
             ("out_of_sequence", "oos_drop_count", "out_of_seq_request")),
    Quantity("rdma_sequence_errors_count", "negative acknowledgements for lost RoCE packets "
             "received", "rdma", ("packet_seq_err", "seq_err_naks_rcvd", "rcvd_seq_err")),
    Quantity("rdma_local_ack_timeouts_count", "times an acknowledgement did not come in time",
             "rdma", ("local_ack_timeout_err", "to_retransmits", "completer_retry_err")),
    Quantity("rdma_retries_exceeded_count", "queue pairs that gave up repeating", "rdma",
             ("req_transport_retries_exceeded", "max_retry_exceeded", "retry_exceeded_err")),
    Quantity("rdma_adaptive_retransmissions_count", "adaptive retransmissions", "rdma",
             ("roce_adp_retrans",)),
    Quantity("rdma_duplicate_requests_count", "requests that came again", "rdma",
             ("duplicate_request", "dup_req")),
    Quantity("rdma_cnp_sent_count", "congestion notifications sent", "rdma",
             ("np_cnp_sent", "tx_cnp_pkts")),
    Quantity("rdma_cnp_handled_count", "congestion notifications received and acted on", "rdma",
             ("rp_cnp_handled", "rx_cnp_pkts")),
    Quantity("rdma_ecn_marked_packets", "RoCE packets received with a mark of congestion", "rdma",
             ("np_ecn_marked_roce_packets", "rx_ecn_marked_pkts")),
)  # fmt: skip

_WANTED = {
    source: re.compile(
        "|".join(f"(?:{w})" for q in QUANTITIES if q.source == source for w in q.ways)
    )
    for source in ("link", "ethtool", "rdma")
}


def wanted(source: str, counters: Mapping[str, int]) -> dict[str, int]:
    """The counters of a source that any quantity is made of."""
    return {name: n for name, n in counters.items() if _WANTED[source].fullmatch(name)}
