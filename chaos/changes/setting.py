"""A kernel setting of a node's network (sysctl)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from chaos.changes.place import NOTHING_SAVED, Place, Steps, Where
from chaos.errors import SpecError

_KEY = re.compile(r"net\.[a-z0-9_.{}]+")
_VALUE = re.compile(r"-?\d+")


@dataclass(frozen=True, slots=True)
class Setting:
    """Write one setting of a network namespace; the undo writes what was there.

    Only settings whose writing changes nothing else may be named: `net.ipv4.ip_forward` rewrites
    that of every interface, so a port's own `forwarding` is the one to write.

    Attributes:
        place: The node, or one of its ports.
        key: Name under `net.`; `{port}` stands for the kernel's name of the place's interface.
        value: A whole number.
    """

    kind: ClassVar[str] = "setting"
    own: ClassVar[str] = "key"
    place: Place
    key: str
    value: str

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key) or self.key.endswith(("ip_forward", ".all.forwarding")):
            raise SpecError(
                f"a setting is one under net. that changes no other, got {self.key!r}", field="key"
            )
        if not _VALUE.fullmatch(self.value):
            raise SpecError(f"a setting is a whole number, got {self.value!r}", field="value")

    @property
    def takes_out(self) -> str:
        """What arrives at a port that does not forward goes no further."""
        return "link" if self.key.endswith(".forwarding") else ""

    def named(self, ifname: str) -> str:
        """The key with an interface's name in it, as `sysctl` takes it.

        Examples:
            >>> Setting(Place("leaf1", "eth1"), "net.ipv4.conf.{port}.forwarding", "0").named("e.5")
            'net.ipv4.conf.e/5.forwarding'
        """
        return self.key.format(port=ifname.replace(".", "/"))

    def describe(self) -> str:
        """One line for plans and journals."""
        return f"{self.place.node}: {self.named(self.place.port)} = {self.value}"

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """The same through `sysctl`; `saved["value"]` is what was there."""
        key = self.named(where.ifname or self.place.port)
        return Steps(
            do=(("sysctl", "-qw", f"{key}={self.value}"),),
            undo=(("sysctl", "-qw", f"{key}={saved.get('value', '(as it was)')}"),),
            look=("sysctl", key),
            mark=f" = {self.value}\n",
        )
