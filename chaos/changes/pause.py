"""Frames that pause a class of traffic (priority flow control, IEEE 802.1Qbb), sent on and on.

A frame says, per priority, for how many quanta the port that gets it must send nothing of that
class. A quantum is the time of 512 bits at the speed of the link.

    01:80:c2:00:00:01  sender  8808  0101  0008   0000 0000 0000 ffff 0000 0000 0000 0000   padding
    never forwarded            MAC   PFC   which  timers of priorities 0 to 7
                               control
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from chaos.changes.place import NOTHING_SAVED, Place, Steps, Where
from chaos.errors import SpecError

BITS_OF_A_QUANTUM = 512
MOST_QUANTA = 65535
ETHERTYPE = 0x8808
_TO, _OPCODE, _LEAST = bytes.fromhex("0180c2000001"), 0x0101, 60
_KILL = 'pkill -KILL -x "$0"; :'


def pause_frame(sender: bytes, priorities: Collection[int], quanta: int) -> bytes:
    """One frame, without its check sum; 0 quanta let the classes go on.

    Args:
        sender: MAC address of the port that sends it, 6 bytes.
        priorities: Which classes, 0 to 7; the timers of the others are not looked at.
        quanta: 0 to 65535.

    Examples:
        >>> pause_frame(bytes(6), (3,), 65535)[12:34].hex()
        '880801010008000000000000ffff0000000000000000'
    """
    timers = (quanta if at in priorities else 0 for at in range(8))
    which = sum(1 << at for at in priorities)
    head = struct.pack("!6s6sHHH8H", _TO, sender, ETHERTYPE, _OPCODE, which, *timers)
    return head.ljust(_LEAST, b"\0")


def paused_ns(quanta: int, speed_bps: int) -> int:
    """How long so many quanta last on a link of that speed, in ns, rounded down.

    Examples:
        >>> paused_ns(65535, 100 * 10**9)
        335539
    """
    return quanta * BITS_OF_A_QUANTUM * 10**9 // speed_bps


@dataclass(frozen=True, slots=True)
class PauseStorm:
    """Keep classes of a port paused by frames from the port at the other end of its cable.

    They are sent by a process that is born waiting when the change is made ready. The undo kills it
    and lets the classes go on. When it dies otherwise, they go on after the quanta of its last
    frame; after `most_ns` it ends by itself.

    Attributes:
        place: The port that sends.
        tag: Name of the process, as `ps -o comm` shows it; no other change's.
        to: Id of the port that is paused, such as `leaf1:Ethernet4`.
        priorities: The classes.
        speed_bps: Speed of the link, bits per second.
        most_ns: Life of the process, from the deed.
        quanta: Of each frame.
    """

    kind: ClassVar[str] = "pause_storm"
    own: ClassVar[str] = "tag"
    takes_out: ClassVar[str] = "spreads"
    nice: ClassVar[int] = -15
    place: Place
    tag: str
    to: str
    priorities: tuple[int, ...]
    speed_bps: int
    most_ns: int
    quanta: int = MOST_QUANTA

    def __post_init__(self) -> None:
        object.__setattr__(self, "priorities", tuple(self.priorities))
        if not self.tag.isidentifier() or not 1 <= len(self.tag) <= 15:
            raise SpecError(f"a process's name has 1 to 15 letters and digits, got {self.tag!r}")
        wrong = [one for one in self.priorities if not 0 <= one <= 7]
        if wrong or not self.priorities or len(set(self.priorities)) < len(self.priorities):
            raise SpecError(
                f"priorities are of 0 to 7, each once, got {list(self.priorities)}",
                field="priorities",
            )
        if not 1 <= self.quanta <= MOST_QUANTA:
            raise SpecError(f"quanta must be 1 to {MOST_QUANTA}, got {self.quanta}", field="quanta")
        if self.speed_bps <= 0:
            raise SpecError(f"a speed must be above 0, got {self.speed_bps}", field="speed")

    @property
    def lasts_ns(self) -> int:
        """How long one frame keeps the classes paused."""
        return paused_ns(self.quanta, self.speed_bps)

    @property
    def every_ns(self) -> int:
        """From one frame to the next: half of that, so that one may be lost."""
        return self.lasts_ns // 2

    def describe(self) -> str:
        """One line for plans and journals."""
        many = "priority" if len(self.priorities) == 1 else "priorities"
        which = ", ".join(map(str, self.priorities))
        return (
            f"{self.place}: pauses {many} {which} of {self.to}, a frame each "
            f"{self.every_ns / 1000:.4g} us ({self.quanta} quanta last {self.lasts_ns / 1000:.4g} "
            f"us at {self.speed_bps / 1e9:g} Gbit/s), {self.most_ns / 1e9:g} s at most"
        )

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """Words for the deed, which no command does; a command that ends what is left of it."""
        frame = pause_frame(bytes(6), self.priorities, self.quanta).hex()
        words = ("(pfc)", f"name={self.tag}", f"dev={where.ifname}", f"every={self.every_ns}ns")
        return Steps(
            do=((*words, f"frame={frame}"),),
            undo=(("sh", "-c", _KILL, self.tag),),
            look=("ps", "-e", "-o", "comm="),
            mark=f"{self.tag}\n",
        )
