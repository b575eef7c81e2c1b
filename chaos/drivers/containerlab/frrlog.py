"""The log of FRR in a container: switched on in labs of ours, found in others.

It goes to a file of its own, with microseconds, and tells changes of BGP and BFD sessions. Nothing
is written into the container's configuration, so a restart ends it.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from chaos.drivers.containerlab.runtime import Box, Runtime

OURS = "/var/log/frr/railbreak.log"
_OTHERS = ("/var/log/frr/frr.log", "/var/log/frr.log", "/var/log/frr/bgpd.log")


def switch_on(runtime: Runtime, box: Box, deadline_s: float = 0.0) -> str:
    """Have FRR in a container of ours log to `OURS`; why it cannot, empty when it does.

    Args:
        runtime: The container runtime.
        box: A running container.
        deadline_s: How long its daemons may take until they answer.
    """
    give_up = time.monotonic() + deadline_s
    while True:
        said = runtime("exec", box.name, "vtysh", "-c", "show running-config")
        if not said.code or time.monotonic() >= give_up:
            break
        time.sleep(0.1)
    if said.code:
        return f"{box.node}: FRR keeps its log to itself: {said.sentence}"
    lines = ["configure terminal", f"log file {OURS} debugging", "log timestamp precision 6"]
    for header in re.findall(r"^router bgp .*$", said.out, re.M):
        lines += [header, "bgp log-neighbor-changes", "exit"]
    lines.append("end")
    if re.search(r"^bfd$| bfd\b", said.out, re.M):
        lines.append("debug bfd peer")
    words = [word for line in lines for word in ("-c", line)]
    said = runtime("exec", box.name, "vtysh", *words)
    return f"{box.node}: FRR keeps its log to itself: {said.sentence}" if said.code else ""


def ours(box: Box) -> str:
    """Path on this machine of the log that `switch_on` asks for."""
    return f"/proc/{box.pid}/root{OURS}"


def log_of(box: Box) -> str:
    """Path on this machine of a running container's log of FRR; empty where there is none."""
    for name in (OURS, *_OTHERS):
        path = Path(f"/proc/{box.pid}/root{name}")
        if path.is_file():
            return str(path)
    return ""
