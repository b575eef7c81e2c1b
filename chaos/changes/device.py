"""The PCI device behind an interface: let go of, taken off its bus, started anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from chaos.changes.place import NOTHING_SAVED, Argv, Place, Steps, Where
from chaos.errors import SpecError

DEVICES = "/sys/bus/pci/devices"

# $1 PCI address, $2 its bus, $3 its driver, $4 the driver that was prescribed for it
_BACK = " ".join(
    (
        f"at={DEVICES}/$1; scan=/sys/class/pci_bus/$2/rescan;",
        "[ -e $scan ] || scan=/sys/bus/pci/rescan;",
        "[ -e $at ] || echo 1 >$scan;",
        '[ -z "$4" ] || echo "$4" >$at/driver_override;',
        '[ -e $at/driver ] || echo "$1" >/sys/bus/pci/drivers/$3/bind;',
        "[ -e $at/driver ]",
    )
)
# $1 PCI address, $2 what tells its interface from its others, $3 the name that it had. What is only
# linked to is another device's: a virtual function, or the physical one.
_NAME = " ".join(
    (
        f"at=$(readlink -f {DEVICES}/$1); n=0;",
        'find() { name=; for one in "$at"/net/* "$at"/*/net/*; do',
        '[ -e "$one/dev_id" ] && ! [ -h "${one%/net/*}" ] || continue;',
        '[ "$(cat "$one/dev_id") $(cat "$one/dev_port")" = "$2" ] && name=${one##*/};',
        'done; [ -n "$name" ]; };',
        'until find "$@"; do n=$((n + 1));',
        '[ $n -lt 100 ] || { echo "no interface of $1 came back as $3"; exit 1; };',
        "sleep 0.1; done;",
        "command -v udevadm >/dev/null && udevadm settle --timeout=5;",
        'find "$@"; [ "$name" = "$3" ] ||',
        '{ ip link set dev "$name" down && ip link set dev "$name" name "$3"; }',
    )
)
_LOOK = f"ls {DEVICES} >/dev/null || exit 1; [ ! -e {DEVICES}/$1/driver ] || echo 'a driver has it'"


@dataclass(frozen=True, slots=True)
class DeviceGone:
    """Take the PCI device behind an interface; its undo brings it back, and what was set on it.

    With the device go its interfaces, by name and index, and all that hangs on them: addresses,
    routes, neighbours, MTU, MAC address, settings. They are saved before the deed. What comes back
    is found by the device's address, since its name may be another one.

    Attributes:
        place: An interface of the device.
        how: `unbind`: its driver lets go of it. `remove`: it leaves its bus, as if pulled, until
            the bus is scanned. `reload`: devlink starts the driver anew; the device is back at
            once, with nothing set on it.
        takes: Further ports of the node that lie on this device and go with it.
    """

    kind: ClassVar[str] = "device_gone"
    own: ClassVar[str] = ""
    takes_out: ClassVar[str] = "link"
    place: Place
    how: Literal["unbind", "remove", "reload"] = "unbind"
    takes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "takes", tuple(self.takes))
        if self.place.side == "wire" or not self.place.port:
            raise SpecError(f"{self.place}: a device lies behind a port of a node; name that")

    def describe(self) -> str:
        """One line for plans and journals."""
        done = {
            "unbind": "its driver lets go of its PCI device",
            "remove": "its PCI device leaves the bus",
            "reload": "its PCI device is started anew by devlink",
        }[self.how]
        others = f", and with it {', '.join(self.takes)}" if self.takes else ""
        return f"{self.place}: {done}{others}"

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """Commands; the address, the driver and what to put back are in `saved`."""
        name = where.ifname
        address = str(saved.get("address", f"PCI-ADDRESS-OF-{name}"))
        driver = str(saved.get("driver", "DRIVER"))
        bus = str(saved.get("bus", "BUS"))
        interfaces = saved.get("interfaces", [[name, "ID"]])
        back = ("sh", "-c", _BACK, "railbreak", address, bus, driver, str(saved.get("forced", "")))
        names = [("sh", "-c", _NAME, "railbreak", address, id, was) for was, id in interfaces]
        return Steps(
            do=(self._deed(address, driver),),
            undo=(back, *names, *(tuple(argv) for argv in saved.get("commands", ()))),
            look=("sh", "-c", _LOOK, "railbreak", address)
            if self.how != "reload"
            else ("ip", "-o", "link", "show", "dev", name),
            unless="a driver has it" if self.how != "reload" else ",UP",
        )

    def _deed(self, address: str, driver: str) -> Argv:
        if self.how == "reload":
            return ("devlink", "dev", "reload", f"pci/{address}", "action", "driver_reinit")
        word, file = (
            (address, f"/sys/bus/pci/drivers/{driver}/unbind")
            if self.how == "unbind"
            else ("1", f"{DEVICES}/{address}/remove")
        )
        return ("sh", "-c", 'echo "$1" >"$2"', "railbreak", word, file)
