"""A switch port with almost no buffer."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, aimed
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import fault
from chaos.units import Bitrate, Size
from faults.link_slow import longest_of, shaped


@fault("tiny_buffers", area="switch")
@dataclass(frozen=True, slots=True)
class TinyBuffers:
    """Let what an end of a link sends wait in a queue of a few packets, at a given rate.

    A port drops what its buffer cannot hold while it sends at its rate. Here nothing waits longer
    than `queue` bytes take at `rate`: bursts of several senders (incast) are cut, a single paced
    flow below the rate is not.

    Reach: as `link_slow`: what the kernel sends over that link. It is a queue of its own per
    direction, not a buffer that ports share, and it has no lossless class: what a real switch
    would hold back by pause frames is dropped here.

    Needs: CAP_NET_ADMIN, sch_tbf, and a port without a queueing discipline of somebody's own.

    Args:
        link: One link: id, node pair, or `in-use …` for one that the measured traffic crosses.
        rate: Bits per second that the port sends.
        end: Whose port: `both`, a node at the link, or `near`/`far`.
        queue: What it holds; nothing: two of the link's longest packets.

    Try:
        tiny_buffers link=leaf1--spine1 rate=1Gbit/s end=leaf1
        tiny_buffers link=host1--leaf1 rate=1Gbit/s end=leaf1 queue=40kB

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("leaf1", "eth1"), Port("spine1", "eth1"), mtu=1500)
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1"), "spine1": Node("spine1")}, (cable,))
        >>> tiny = TinyBuffers("leaf1--spine1", Bitrate.parse("1 Gbit/s"), "leaf1")
        >>> [one.describe() for one in tiny.changes(fabric)]
        ['spine1:eth1~wire: sends at most 1000 Mbit/s, 1518 B at once, 3036 B waiting']
    """

    link: str
    rate: Bitrate
    end: str = "both"
    queue: Size | None = None

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One short queue per direction; one packet may go at once."""
        found, _ = aimed(fabric, self.link, self.end)
        longest = longest_of(found)
        held = 2 * longest if self.queue is None else self.queue.bytes
        if held < longest:
            raise SpecError(
                f"queue must hold at least one packet of {found.id}, {longest} B, got {self.queue}",
                field="queue",
            )
        return shaped(fabric, self.link, self.end, self.rate, longest, held - longest)
