"""The PCI device behind an interface, as sysfs tells of it; why it must not be taken."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chaos.errors import BlockedError
from chaos.natives.command import command

_PCI = Path("/sys/bus/pci/devices")
_NET = Path("/sys/class/net")
_OWN_NET, _FIRST_NET = "/proc/thread-self/ns/net", "/proc/1/ns/net"


@dataclass(frozen=True, slots=True)
class Device:
    """A PCI device with network interfaces.

    Attributes:
        address: Such as `0000:3b:00.0`.
        driver: Name of the driver that has it.
        forced: Name of the driver that was prescribed for it; empty for none.
        interfaces: Name of each interface, and what tells it from the device's others.
    """

    address: str
    driver: str
    forced: str
    interfaces: tuple[tuple[str, str], ...]

    @property
    def bus(self) -> str:
        """The bus that it is on, such as `0000:3b`."""
        return self.address.rpartition(":")[0]

    @property
    def bound(self) -> bool:
        """Whether a driver has it.

        Raises:
            OSError: the devices of the bus cannot be read.
        """
        return self.address in os.listdir(_PCI) and (_PCI / self.address / "driver").exists()


def device_of(ifname: str) -> Device | None:
    """The PCI device behind an interface of this machine; None where there is none."""
    at = (_NET / ifname / "device").resolve()
    if _link(at / "subsystem") == "virtio":
        at = at.parent
    if _link(at / "subsystem") != "pci":  # a NIC on USB is below a PCI device that others are on
        return None
    forced = _text(at / "driver_override")
    return Device(
        at.name,
        _link(at / "driver"),
        "" if forced == "(null)" else forced,
        tuple(sorted(_interfaces(at))),
    )


def index_of(ifname: str) -> int:
    """Index of an interface of this machine."""
    return int(_text(_NET / ifname / "ifindex") or 0)


def _interfaces(at: Path) -> Iterator[tuple[str, str]]:
    """A virtual function is linked to, not held: its interfaces are not this device's."""
    held = [at, *(one for one in at.iterdir() if one.is_dir() and not one.is_symlink())]
    for one in held:
        for net in (one / "net").glob("*"):
            yield net.name, f"{_text(net / 'dev_id')} {_text(net / 'dev_port')}"


def refuse(device: Device, how: str, more: int) -> None:
    """Refuse a device whose loss could not be taken back whole, or takes more than was said.

    Args:
        device: Which.
        how: As in `chaos.change.DeviceGone`.
        more: How many further interfaces are known to go with it.

    Raises:
        BlockedError: the reason, and what would be right.
    """
    at, address = _PCI / device.address, device.address
    if os.stat(_OWN_NET).st_ino != os.stat(_FIRST_NET).st_ino:
        raise BlockedError(
            f"PCI device {address} is used in a network namespace, and would come back in that of "
            "the machine; mode admin leaves the interface where it is"
        )
    if not device.driver:
        raise BlockedError(f"no driver has PCI device {address}, so taking it breaks nothing")
    if _text(at / "sriov_numvfs") not in ("", "0"):
        raise BlockedError(
            f"PCI device {address} has {_text(at / 'sriov_numvfs')} virtual functions, which would "
            "go for good; name a port of one of them, or take them off first (sriov_numvfs)"
        )
    if how == "remove" and (at / "physfn").exists():
        raise BlockedError(
            f"PCI device {address} is a virtual function, which no scan of the bus finds again; "
            "mode unbind can be taken back"
        )
    for name, _ in device.interfaces:
        if above := sorted(one.name[6:] for one in (_NET / name).glob("upper_*")):
            raise BlockedError(
                f"{name} is below {', '.join(above)} (a bond, a bridge, a VLAN …), which would "
                "lose it or go with it for good; mode admin leaves it where it is"
            )
    up = [name for name, _ in device.interfaces if int(_text(_NET / name / "flags"), 16) & 1]
    if len(up) > more + 1:
        raise BlockedError(
            f"PCI device {address} carries {', '.join(up)}, and would take all of them; the plan "
            "does not name them all: give each a cable in the inventory, or set it down first"
        )
    if how == "reload":
        _refuse_reload(device)


def _refuse_reload(device: Device) -> None:
    code, said = command(("devlink", "-s", "-j", "dev", "show", f"pci/{device.address}"))
    if code == 127:
        raise BlockedError("mode reload needs the tool devlink (package iproute2) on the machine")
    known = reloads(said) if not code else None
    if known is None:
        raise BlockedError(
            f"driver {device.driver} of PCI device {device.address} has no devlink, so nothing can "
            "reload it; mode unbind takes it from its driver"
        )
    if not known:
        raise BlockedError(
            f"driver {device.driver} of PCI device {device.address} cannot be started anew by "
            "devlink (no driver_reinit); mode unbind takes it from its driver"
        )


def reloads(said: str) -> bool | None:
    """Whether `devlink -s -j dev show` tells of a device that can be started anew.

    None: it tells of no device.

    Examples:
        >>> reloads('{"dev":{"pci/0000:08:00.0":{}}}'), reloads('{"dev":{}}')
        (False, None)
    """
    devices = json.loads(said or "{}").get("dev", {})
    if not devices:
        return None
    return any(
        "driver_reinit" in one.get("stats", {}).get("reload", {}) for one in devices.values()
    )


def _link(path: Path) -> str:
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
