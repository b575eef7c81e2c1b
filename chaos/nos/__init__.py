"""Switches by command line: one small pure table per network operating system."""

from __future__ import annotations

from chaos.errors import SpecError, near
from chaos.nos.cumulus import CUMULUS
from chaos.nos.eos import EOS
from chaos.nos.frr import FRR
from chaos.nos.sonic import SONIC
from chaos.nos.srlinux import SRLINUX
from chaos.nos.table import (
    Commands,
    Confirmed,
    Platform,
    Standing,
    at_opposite_end,
    in_its_words,
    refusal,
)

PLATFORMS = (FRR, SONIC, EOS, CUMULUS, SRLINUX)
_BY_NAME = {name.lower(): one for one in PLATFORMS for name in (one.name, *one.aliases)}

__all__ = [
    "PLATFORMS",
    "Commands",
    "Confirmed",
    "Platform",
    "Standing",
    "at_opposite_end",
    "in_its_words",
    "platform",
    "refusal",
]


def platform(name: str) -> Platform:
    """The platform of a name, an `ansible_network_os` or a device type of Netmiko.

    Raises:
        SpecError: there is no table for it; near names are offered.

    Examples:
        >>> platform("arista.eos.eos").title
        'Arista EOS'
    """
    found = _BY_NAME.get(name.lower())
    if found is None:
        raise SpecError(
            f"no table for the network operating system {name!r}; {near(name, _BY_NAME)}"
        )
    return found
