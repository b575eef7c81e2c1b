"""`DeviceGone`: a PCI device without its driver, off its bus, or started anew; and all put back.

Its interface comes back with another index, perhaps under another name: so what is put back is put
back by commands that name it, once it has its name again.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from chaos.change import DeviceGone, Hits, Where
from chaos.changes.device import DEVICES
from chaos.errors import ApplyError, BlockedError, FabricError
from chaos.natives import pci, vanishing
from chaos.natives.command import command
from chaos.netlink import Netlink, NetlinkError


@dataclass(slots=True)
class Gone:
    """`DeviceGone`: one write takes it, commands bring it back.

    Attributes:
        slow_s: What a driver may take to let go or to start; so long a dead-man waits in addition.
    """

    change: DeviceGone
    where: Where
    device: pci.Device
    saved: Mapping[str, Any]
    gone: int = 0
    slow_s: ClassVar[float] = 60.0
    lasting: bool = False

    @classmethod
    def open(cls, change: DeviceGone, where: Where, saved: Mapping[str, Any] | None) -> Gone:
        """Find the device, and write down what goes with it."""
        if saved is not None:
            interfaces = tuple((name, id) for name, id in saved["interfaces"])
            known = pci.Device(saved["address"], saved["driver"], saved["forced"], interfaces)
            return cls(change, where, known, saved)
        link = Netlink.open()
        try:
            return _found(change, where, link)
        except OSError as error:
            raise FabricError(f"{change.place}: {where.ifname} cannot be read: {error}") from None
        finally:
            link.close()

    def do(self) -> None:
        """Take it."""
        how, address = self.change.how, self.device.address
        try:
            if how == "unbind":
                file = Path(f"/sys/bus/pci/drivers/{self.device.driver}/unbind")
                file.write_text(address, encoding="ascii")
            elif how == "remove":
                Path(DEVICES, address, "remove").write_text("1", encoding="ascii")
            else:
                self._reload()
        except OSError as error:
            raise ApplyError(f"{self.change.describe()}: {error}") from None
        self.gone += len(self.device.interfaces)

    def _reload(self) -> None:
        for argv in self.change.steps(self.where, self.saved).do:
            code, said = command(argv)
            if code:
                raise ApplyError(f"{self.change.describe()}: {shlex.join(argv)}: {said.strip()}")

    def undo(self) -> tuple[str, ...]:
        """Bring it back, give its interfaces their names, put back what was set on them."""
        refused = []
        for argv in self.change.steps(self.where, self.saved).undo:
            code, said = command(argv)
            if code and "File exists" not in said:
                refused.append(f"{_short(argv)}: {said.strip() or f'exit status {code}'}")
        return tuple(refused)

    def in_force(self) -> bool:
        """Whether no driver has the device; of one started anew, whether its interface is down."""
        if self.change.how != "reload":
            try:
                return not self.device.bound
            except OSError as error:
                raise FabricError(f"{self.change.place}: {error}") from None
        steps = self.change.steps(self.where, self.saved)
        code, said = command(steps.look)
        return bool(code) or steps.holds(said)

    def hits(self) -> Hits:
        """Interfaces that went, over all times."""
        return Hits(self.gone, self.gone)

    def close(self) -> None:
        """Nothing is held."""


def _found(change: DeviceGone, where: Where, link: Netlink) -> Gone:
    place, name = change.place, where.ifname
    try:
        own = vanishing.interface(link, where.ifindex)
    except NetlinkError as error:
        raise FabricError(f"{place}: {name} cannot be read: {error}") from None
    if own.name != name:
        raise FabricError(f"{place}: interface {where.ifindex} is now {own.name!r}, not {name!r}")
    device = pci.device_of(name)
    if device is None:
        raise BlockedError(
            f"{place}: {name} is no PCI device{_kind(own.kind)}, so it has no driver that could "
            "let go of it and no slot; mode carrier or admin takes the port"
        )
    if not own.up:
        raise BlockedError(f"{place}: {name} is down already, so taking it breaks nothing")
    pci.refuse(device, change.how, len(change.takes))
    interfaces = [vanishing.interface(link, pci.index_of(one)) for one, _ in device.interfaces]
    for one in interfaces:
        vanishing.refuse(link, one)
    saved = {
        "address": device.address,
        "bus": device.bus,
        "driver": device.driver,
        "forced": device.forced,
        "interfaces": [list(one) for one in device.interfaces],
        "commands": [list(argv) for argv in vanishing.all_of(link, interfaces)],
    }
    return Gone(change, where, device, saved)


def _kind(kind: str) -> str:
    return f" (it is of kind {kind})" if kind else ""


def _short(argv: tuple[str, ...]) -> str:
    """A command for people: a script by its arguments."""
    return shlex.join(argv if argv[:2] != ("sh", "-c") else argv[3:])
