"""Where FRR on a machine writes its log, asked from FRR itself."""

from __future__ import annotations

import re

from chaos.drivers.ssh.connect import Connection, last_words
from chaos.errors import FabricError

_CURE = (
    "give it `log file /var/log/frr/frr.log` and `log timestamp precision 6`, or leave it out of "
    "the probe's `nodes`"
)
_FILE = re.compile(r"^File logging: level (?P<level>\S+), filename (?P<path>\S+)", re.M)


async def find(connection: Connection) -> tuple[str, str]:
    """The path of the log and an empty text, or an empty path and why there is none."""
    name = connection.target.name
    try:
        done = await connection.run(("vtysh", "-c", "show logging"), deadline_s=10.0)
    except FabricError as error:
        return "", str(error)
    path = path_in(done.stdout.decode(errors="replace"))
    if done.code:
        said = last_words(done.stderr)
        return "", f"{name}: vtysh does not answer ({said or f'status {done.code}'}); is FRR up?"
    if not path:
        return "", f"{name}: FRR writes no log file; {_CURE}"
    return path, ""


def path_in(said: str) -> str:
    """The file in what `show logging` says: bgpd's where daemons have their own.

    Examples:
        >>> path_in("Logging configuration for bgpd:\\nFile logging: level informational, "
        ...         "filename /var/log/frr/frr.log\\n")
        '/var/log/frr/frr.log'
        >>> path_in("Logging configuration for bgpd:\\nFile logging: disabled\\n")
        ''
    """
    found = {}
    for part in said.split("Logging configuration for ")[1:]:
        daemon = part.partition(":")[0].strip()
        if match := _FILE.search(part):
            found[daemon] = match["path"]
    return found.get("bgpd", "")
