"""What takes changes back on a machine when everything else on it of ours is dead.

A POSIX shell script with the undo commands, detached from whoever started it: no Python, no network
and no injector is needed for it to act. It watches a lease file whose text must keep changing, and
the age of the changes. It is armed before the deed and disarmed after a proved heal.

    lease renewed ──▶ waits            silent for LEASE s, or LIFE s old ──▶ undo, log, folder gone
    folder gone ──▶ ends
"""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.errors import BlockedError

ARMED_WITHIN_S = 10.0
#: The injector heals when the lease runs out; the script waits so much longer, in whole seconds.
AFTER_S = 2

_SCRIPT = r"""#!/bin/sh
# railbreak: takes back what was broken here, when nobody renews the lease any more.
d={folder} lease={lease} life={life}
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C
cd /
now() {{ read -r up _ </proc/uptime; up=${{up%.*}}; }}
tell() {{
  echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) $1" >>"$d/log"
  logger -t railbreak "$1"
}} 2>/dev/null
run() {{
  said=$("$@" 2>&1) && return
  case $said in *"File exists"*) ;; *) bad=1; tell "$*: $said" ;; esac
}}
undo() {{
{undo}
}}
now; since=$up seen= begun=
echo $$ >"$d/pid"
while :; do
  sleep 1
  [ -e "$d/lease" ] || exit 0
  now
  read -r word phase <"$d/lease"
  [ "$word" = "$seen" ] || {{ seen=$word; since=$up; }}
  [ "$phase" = started ] && : "${{begun:=$up}}"
  [ $((up - since)) -lt "$lease" ] || {{ why="no sign of life for $lease s"; break; }}
  [ -z "$begun" ] || [ $((up - begun)) -lt "$life" ] || {{ why="$life s are over"; break; }}
done
tell "taking back: $why"
tries=0
while bad=; undo; [ -n "$bad" ] && [ $tries -lt 20 ]; do tries=$((tries + 1)); sleep 1; done
tell "taken back${{bad:+, with errors}}"
rm -rf "$d"; rmdir "${{d%/*}}" 2>/dev/null
exit 0
"""


def script(folder: Path, undo: Sequence[Sequence[str]], *, lease_s: float, life_s: float) -> str:
    """The text of the dead-man.

    Args:
        folder: Its own, on the machine.
        undo: Commands, in order; each safe twice and safe when the deed never came.
        lease_s: Silence after which the injector heals by itself.
        life_s: After so long since the start it acts, whatever the lease says.

    Examples:
        >>> text = script(Path("/run/x"), [("ip", "link", "set", "a b", "up")], lease_s=3, life_s=9)
        >>> "  run ip link set 'a b' up" in text, "lease=5 life=11" in text
        (True, True)
    """
    return _SCRIPT.format(
        folder=shlex.quote(str(folder)),
        lease=math.ceil(lease_s) + AFTER_S,
        life=math.ceil(life_s) + AFTER_S,
        undo="\n".join(f"  run {shlex.join(argv)}" for argv in undo) or "  :",
    )


@dataclass(slots=True)
class Deadman:
    """An armed script.

    Attributes:
        folder: Its own: script, lease, process id, log.
        lease: Open lease file.
        beats: How often the lease was renewed.
    """

    folder: Path
    lease: int
    beats: int = 0

    @classmethod
    def arm(
        cls, folder: Path, undo: Sequence[Sequence[str]], *, lease_s: float, life_s: float
    ) -> Deadman:
        """Write the script and start it, out of reach of whatever ends this session.

        Raises:
            BlockedError: it cannot be written or does not start; nothing may be broken.
        """
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            path = folder / "takeback.sh"
            path.write_text(script(folder, undo, lease_s=lease_s, life_s=life_s))
            lease = os.open(folder / "lease", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            made = cls(folder, lease)
            made.renew("armed")
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise BlockedError(
                f"the dead-man cannot be written into {folder} ({error.strerror}); nothing was "
                "broken, since without it nobody would take the fault back when we are cut off"
            ) from None
        _start(path, folder.name)
        give_up = time.monotonic() + ARMED_WITHIN_S
        while not _pid(folder):
            if time.monotonic() > give_up:
                made.disarm()
                raise BlockedError(
                    f"the dead-man did not start within {ARMED_WITHIN_S:g} s: sh {path}; nothing "
                    "was broken"
                )
            time.sleep(0.005)
        return made

    def renew(self, phase: str) -> None:
        """A sign of life; `started` once the schedule runs. Nothing where it is disarmed."""
        if self.lease < 0:
            return
        self.beats += 1
        os.pwrite(self.lease, f"{self.beats:012d} {phase:<8}\n".encode(), 0)

    def disarm(self) -> None:
        """End the script; nothing of it stays. Repeatable."""
        if self.lease >= 0:
            os.close(self.lease)
            self.lease = -1
        disarm(self.folder)


def disarm(folder: Path) -> None:
    """End the script that watches a folder, and remove the folder; repeatable."""
    pid = _pid(folder)
    with contextlib.suppress(OSError):
        if pid and str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()  # only when nobody else's is left in it


def _pid(folder: Path) -> int:
    try:
        return int((folder / "pid").read_text() or 0)
    except (OSError, ValueError):
        return 0


def _start(path: Path, name: str) -> None:
    """By systemd where it runs (its unit outlives the session), else in a session of its own."""
    if os.path.isdir("/run/systemd/system"):
        unit = ("systemd-run", "--collect", "--quiet", "--unit", f"railbreak-{name}")
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run((*unit, "sh", path), capture_output=True, timeout=10, check=False)
            if done.returncode == 0:
                return
    subprocess.run(
        ("sh", "-c", 'setsid sh "$1" </dev/null >/dev/null 2>&1 &', "railbreak", path),
        check=False,
        timeout=10,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
