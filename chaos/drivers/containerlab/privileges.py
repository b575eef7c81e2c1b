"""Whether this machine lets containers be privileged, found out without starting one."""

from __future__ import annotations

from pathlib import Path

_LAST = Path("/proc/sys/kernel/cap_last_cap")


def privileged_refused() -> str:
    """Why a privileged container cannot be started here; empty when it can.

    A privileged container gets every capability, and the daemon can only give what it may have.
    """
    try:
        whole = (1 << (int(_LAST.read_text()) + 1)) - 1
        held = bounding(Path(f"/proc/{_daemon()}/status").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if held & whole == whole:
        return ""
    missing = [str(bit) for bit in range(whole.bit_length()) if not held >> bit & 1]
    return f"the runtime's daemon may not have capabilities {', '.join(missing)} itself"


def bounding(status: str) -> int:
    """The bounding set in `/proc/PID/status`.

    Examples:
        >>> hex(bounding("Name: x\\nCapBnd:\\t000001feffffffff\\n"))
        '0x1feffffffff'
    """
    line = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
    return int(line.split()[1], 16)


def _daemon() -> str:
    """Process id of the daemon, or of ourselves where it is not to be seen."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                name = (process / "comm").read_text(encoding="utf-8").strip()
            except OSError:
                continue
            if name in ("dockerd", "containerd"):
                return process.name
    return "self"
