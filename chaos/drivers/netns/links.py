"""Cables: veth pairs made straight into their namespaces, joined by nftables in the hidden one."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from chaos import netlink as nl
from chaos.drivers.netns.plan import Cable, End, Plan
from chaos.errors import FabricError
from chaos.netns import inside

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_LINKINFO, _IFLA_NET_NS_FD, _INFO_KIND, _INFO_DATA = 18, 28, 1, 2
_VETH_INFO_PEER, _BR_GROUP_FWD_MASK = 1, 9
_NEW = nl.NLM_F_REQUEST | nl.NLM_F_ACK | nl.NLM_F_CREATE | nl.NLM_F_EXCL
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17
_BATCH = 32
#: Every link-local protocol but the three that the kernel keeps to itself (STP, pause, LACP).
_FORWARD_LINK_LOCAL = 0xFFF8


def veth_pair(end: End, mtu: int, node_fd: int, wire_fd: int) -> bytes:
    """The message that makes both ends of a pair, each in its namespace, with its own index."""
    peer = (
        nl.ifinfo(end.wire_ifindex)
        + nl.text(_IFLA_IFNAME, end.wire_name)
        + nl.u32(_IFLA_MTU, mtu)
        + nl.u32(_IFLA_NET_NS_FD, wire_fd)
    )
    info = nl.text(_INFO_KIND, "veth") + nl.attr(_INFO_DATA, nl.attr(_VETH_INFO_PEER, peer))
    body = (
        nl.ifinfo(end.ifindex)
        + nl.text(_IFLA_IFNAME, end.port.name)
        + nl.attr(_IFLA_ADDRESS, bytes.fromhex(end.mac.replace(":", "")))
        + nl.u32(_IFLA_MTU, mtu)
        + nl.u32(_IFLA_NET_NS_FD, node_fd)
        + nl.attr(_IFLA_LINKINFO, info)
    )
    return nl.message(nl.RTM_NEWLINK, _NEW, body)


def make_cables(cables: Sequence[Cable], nodes: Mapping[str, str], wire: str) -> None:
    """Make the veth pairs of all cables; nothing is up yet.

    Args:
        cables: What to make.
        nodes: Path of the network namespace per node.
        wire: Path of the hidden namespace.

    Raises:
        FabricError: the kernel refused one; the message names the link.
    """
    kernel = nl.Netlink.open()
    wire_fd = os.open(wire, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for start in range(0, len(cables), _BATCH):
            _make_batch(kernel, cables[start : start + _BATCH], nodes, wire_fd)
    finally:
        os.close(wire_fd)
        kernel.close()


def _make_batch(
    kernel: nl.Netlink, cables: Sequence[Cable], nodes: Mapping[str, str], wire_fd: int
) -> None:
    names = {end.port.node for cable in cables for end in cable.ends}
    with contextlib.ExitStack() as files:
        fds = {name: os.open(nodes[name], os.O_RDONLY | os.O_CLOEXEC) for name in names}
        for fd in fds.values():
            files.callback(os.close, fd)
        try:
            kernel.send(
                *(
                    veth_pair(end, cable.link.mtu, fds[end.port.node], wire_fd)
                    for cable in cables
                    for end in cable.ends
                )
            )
        except nl.NetlinkError as error:
            listed = ", ".join(cable.link.id for cable in cables[:4])
            raise FabricError(f"a link could not be made (among {listed}): {error}") from None


def wire_ruleset(cables: Iterable[Cable]) -> str:
    """nftables text that joins the two hidden ends of every cable.

    It is nftables, not a tc redirect: tc acts before nftables at ingress, and would carry packets
    away before a fault's drop rule (priority -500) had seen them.
    """
    lines = ["table netdev wire {"]
    for cable in cables:
        if len(cable.ends) < 2:
            continue
        names = [end.wire_name for end in cable.ends]
        for here, there in (names, reversed(names)):
            lines += [
                f"  chain from_{here} {{",
                f"    type filter hook ingress device {here} priority 0; policy accept;",
                f"    fwd to {there}",
                "  }",
            ]
    return "\n".join([*lines, "}", ""])


def join_wires(plan: Plan, wire: str) -> None:
    """Join all hidden ends and set them up."""

    def work() -> None:
        ruleset = wire_ruleset(plan.cables).encode()
        done = subprocess.run(["nft", "-f", "-"], input=ruleset, capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise FabricError(f"nft could not join the wires: {said[0] if said else 'no reason'}")
        kernel = nl.Netlink.open()
        try:
            ends = [end for cable in plan.cables for end in cable.ends]
            _send(kernel, [nl.set_updown(end.wire_ifindex, True) for end in ends])
        finally:
            kernel.close()

    inside(wire, work)


def _send(kernel: nl.Netlink, messages: Sequence[bytes]) -> None:
    for start in range(0, len(messages), _BATCH):
        kernel.send(*messages[start : start + _BATCH])


def bring_up(plan: Plan, node: str, path: str) -> None:
    """In one node: its sysctls per interface, checksum offload off, loopback and all ports up."""

    def work() -> None:
        ends = plan.ends_of(node)
        for key, value in plan.sysctls[node].items():
            _sysctl(node, key, value)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
            for end in ends:
                _checksums_off(door, end.port.name)
        kernel = nl.Netlink.open()
        try:
            if node in plan.bridges:
                _make_bridge(kernel, node, plan.bridges[node], ends)
            _send(kernel, [nl.set_updown(1, True)])
            _send(kernel, [nl.set_updown(end.ifindex, True) for end in ends])
        except nl.NetlinkError as error:
            raise FabricError(f"{node}: its interfaces could not be set up: {error}") from None
        finally:
            kernel.close()

    inside(path, work)


def _sysctl(node: str, key: str, value: str) -> None:
    path = Path("/proc/sys/" + key.translate({ord("."): "/", ord("/"): "."}))
    try:
        if path.read_text(encoding="ascii").strip() != value:
            path.write_text(value, encoding="ascii")
    except FileNotFoundError:
        if "hash_seed" not in key:  # newer than some kernels; `probe` says so
            raise FabricError(
                f"{node}: this kernel has no sysctl {key}; take it out of the topology file"
            ) from None
    except OSError as error:
        raise FabricError(f"{node}: sysctl {key}={value}: {error.strerror}") from None


def _checksums_off(door: socket.socket, name: str) -> None:
    """As Containerlab does: captures and relays in user space then see whole packets."""
    value = array.array("B", struct.pack("=II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP", name.encode(), value.buffer_info()[0])
    fcntl.ioctl(door, _SIOCETHTOOL, request.ljust(40, b"\0"))


def _make_bridge(kernel: nl.Netlink, name: str, index: int, ends: Sequence[End]) -> None:
    mask = nl.attr(_BR_GROUP_FWD_MASK, struct.pack("=H", _FORWARD_LINK_LOCAL))
    info = nl.text(_INFO_KIND, "bridge") + nl.attr(_INFO_DATA, mask)
    made = nl.ifinfo(index) + nl.text(_IFLA_IFNAME, name[:15]) + nl.attr(_IFLA_LINKINFO, info)
    enslaved = [
        nl.message(
            nl.RTM_NEWLINK,
            nl.NLM_F_REQUEST | nl.NLM_F_ACK,
            nl.ifinfo(end.ifindex) + nl.u32(_IFLA_MASTER, index),
        )
        for end in ends
    ]
    _send(kernel, [nl.message(nl.RTM_NEWLINK, _NEW, made), *enslaved, nl.set_updown(index, True)])
