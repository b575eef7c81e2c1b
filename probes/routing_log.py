"""Lines of FRR's log that say that a BGP or BFD session changed; pure.

FRR stamps a line when the daemon acts, not when it is written, so the stamp is the time of the
change; `log timestamp precision 6` makes it microseconds. BFD changes are logged only under
`debug bfd peer`, BGP ones under `bgp log-neighbor-changes`.
"""

from __future__ import annotations

import calendar
import re
import time
from typing import Any

_LINE = re.compile(
    r"(?P<stamp>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d)(?:\.(?P<fraction>\d+))? "
    r"(?P<daemon>BGP|BFD): (?P<said>.*)"
)
_BGP = re.compile(
    r"%ADJCHANGE: neighbor (?P<peer>[^\s(]+)(?:\((?P<host>[^)]*)\))? in vrf (?P<vrf>\S+) "
    r"(?P<state>Up|Down) ?(?P<reason>.*)"
)
_NOTIFICATION = re.compile(
    r"%NOTIFICATION(?:\([^)]*\))?: (?P<way>sent to|received from) neighbor (?P<peer>\S+) "
    r"(?P<code>\d+/\d+) \((?P<words>[^)]*)\)"
)
_BFD = re.compile(
    r"state-change: \[(?:data plane: )?(?P<session>[^\]]*)\] (?P<before>\S+) -> (?P<after>\S+)"
    r"(?: reason:(?P<reason>.*))?"
)


def parse(line: str) -> dict[str, Any] | None:
    """One change as plain values, with `wall_ns` as the log states it; None for other lines.

    `ev` is `bgp`, `bfd` or `notification`. `coarse` says that the stamp has whole seconds only.

    Examples:
        >>> found = parse("1970/01/01 00:00:01.000002 BGP: [N9HHH-F8H1M] %ADJCHANGE: "
        ...               "neighbor eth1(spine1) in vrf default Up ")
        >>> found["ev"], found["peer"], found["host"], found["up"], found["wall_ns"]
        ('bgp', 'eth1', 'spine1', True, 1000002000)
    """
    found = _LINE.match(line)
    if found is None:
        return None
    change = _bgp(found["said"]) if found["daemon"] == "BGP" else _bfd(found["said"])
    if change is None:
        return None
    seconds = calendar.timegm(time.strptime(found["stamp"], "%Y/%m/%d %H:%M:%S"))
    fraction = found["fraction"] or ""
    wall_ns = seconds * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])
    return change | {"wall_ns": wall_ns, "coarse": len(fraction) < 6}


def _bgp(said: str) -> dict[str, Any] | None:
    if found := _BGP.search(said):
        return {
            "ev": "bgp",
            "peer": found["peer"],
            "host": found["host"] or "",
            "up": found["state"] == "Up",
            "reason": found["reason"].strip(),
        }
    if found := _NOTIFICATION.search(said):
        return {
            "ev": "notification",
            "peer": found["peer"],
            "sent": found["way"] == "sent to",
            "code": found["code"],
            "words": found["words"],
        }
    return None


def _bfd(said: str) -> dict[str, Any] | None:
    found = _BFD.search(said)
    if found is None:
        return None
    words = dict(part.split(":", 1) for part in found["session"].split() if ":" in part)
    return {
        "ev": "bfd",
        "peer": words.get("peer", ""),
        "port": words.get("ifname", ""),
        "before": found["before"],
        "after": found["after"],
        "reason": (found["reason"] or "").strip(),
    }
