"""How much can flow between two halves of a fabric's hosts: the maximum flow. Pure.

A cable carries its capacity in each direction at once; a node carries whatever its cables do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

Cable = tuple[str, str, int]


def halves(hosts: Sequence[str]) -> tuple[tuple[frozenset[str], frozenset[str]], ...]:
    """The two ways in which hosts are halved: first half | second half, and every other one.

    In file order, so that neighbours in the file (a rack) are together in the first way and apart
    in the second. Fewer than two hosts have no halves.

    Examples:
        >>> [sorted(one) for one, _ in halves(["h1", "h2", "h3", "h4"])]
        [['h1', 'h2'], ['h1', 'h3']]
    """
    if len(hosts) < 2:
        return ()
    middle = len(hosts) // 2
    ways = ((hosts[:middle], hosts[middle:]), (hosts[::2], hosts[1::2]))
    return tuple((frozenset(one), frozenset(other)) for one, other in ways)


def max_flow(cables: Iterable[Cable], sources: frozenset[str], sinks: frozenset[str]) -> int:
    """The most that can flow from all `sources` together to all `sinks` (Dinic).

    Args:
        cables: Node, node, capacity; several between the same two nodes add up, and one from a
            node to itself carries nothing anywhere.
        sources: Nodes that send as much as their cables take.
        sinks: Nodes that receive as much as their cables bring.

    Examples:
        >>> max_flow([("a", "x", 3), ("x", "b", 2), ("x", "b", 2)], frozenset("a"), frozenset("b"))
        3
    """
    graph = _Graph(cables, sources, sinks)
    total = 0
    while levels := graph.levels():
        dead: set[object] = set()
        while pushed := graph.push(levels, dead):
            total += pushed
    return total


_START, _END = ("", "start"), ("", "end")  # no node's name is a tuple


class _Graph:
    """Capacities that are left, per direction."""

    def __init__(
        self, cables: Iterable[Cable], sources: frozenset[str], sinks: frozenset[str]
    ) -> None:
        self.left: dict[object, dict[object, int]] = defaultdict(lambda: defaultdict(int))
        for one, other, capacity in cables:
            a: object = self._end(one, sources, sinks)
            b: object = self._end(other, sources, sinks)
            if a != b:
                self.left[a][b] += capacity
                self.left[b][a] += capacity

    @staticmethod
    def _end(node: str, sources: frozenset[str], sinks: frozenset[str]) -> object:
        return _START if node in sources else _END if node in sinks else node

    def levels(self) -> Mapping[object, int]:
        """Hops from the start where something is left; empty when the end is out of reach."""
        found: dict[object, int] = {_START: 0}
        todo: list[object] = [_START]
        for node in todo:
            for peer, left in self.left[node].items():
                if left and peer not in found:
                    found[peer] = found[node] + 1
                    todo.append(peer)
        return found if _END in found else {}

    def push(self, levels: Mapping[object, int], dead: set[object]) -> int:
        """Send along one shortest way; nodes that lead nowhere are put among the dead."""
        way: list[object] = [_START]
        while way and way[-1] != _END:
            node = way[-1]
            for peer, left in self.left[node].items():
                if left and peer not in dead and levels.get(peer) == levels[node] + 1:
                    way.append(peer)
                    break
            else:
                dead.add(way.pop())
        steps = [*pairwise(way)]
        most = min((self.left[a][b] for a, b in steps), default=0)
        for a, b in steps:
            self.left[a][b] -= most
            self.left[b][a] += most
        return most
