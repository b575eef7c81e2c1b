"""The dead-man of a switch that is a Linux machine: a script on it that holds a lease.

The lease is a file with the second of the machine's own uptime until which the script waits. The
controller moves it on while it lives; when it is over, or the bound is, the script takes
everything back. It is text only: nothing here acts.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterator, Sequence

FOLDER = "/run/railbreak-switch"
SYSTEMD = "/run/systemd/system"  # a folder where systemd runs
_CHUNK = 900  # characters of a line; a terminal takes 4095 at most
_UP = "$(cut -d. -f1 /proc/uptime)"


def lease(tag: str) -> str:
    """Path of a lease."""
    return f"{FOLDER}/{tag}.lease"


def script(tag: str, undo: Sequence[str]) -> str:
    """A POSIX shell script that waits, and takes everything back unless it was disarmed.

    Every command of `undo` is run whatever the others did, three times while one of them fails.
    """
    held = lease(tag)
    lines = "\n".join(f"  {line} || bad=1" for line in undo)
    return f"""#!/bin/sh
# railbreak: takes changes back when nobody renews their lease
trap '' HUP INT TERM
cd /
while [ -e {held} ]; do
  now={_UP}
  until=$(cat {held} 2>/dev/null)
  end=$(cat {FOLDER}/{tag}.end 2>/dev/null)
  [ "$now" -ge "${{end:-$((now + 1))}}" ] && break
  [ "$now" -ge "${{until:-0}}" ] && break
  sleep 0.2 2>/dev/null || sleep 1
done
[ -e {held} ] || exit 0
mv {held} {held}.over
for try in 1 2 3; do
  bad=0
{lines}
  [ $bad = 0 ] && break
  sleep 1
done
rm -f {held}.over {FOLDER}/{tag}.end "$0"
"""


def arm(tag: str, undo: Sequence[str], lease_s: int) -> Iterator[str]:
    """Commands that write the script and its lease, and start it; the last one looks for it.

    Args:
        tag: Name of the lease.
        undo: Commands that take everything back, in order.
        lease_s: Time from now until it acts unless the lease is renewed.
    """
    path = f"{FOLDER}/{tag}.sh"
    text = base64.b64encode(script(tag, undo).encode()).decode()
    yield f"umask 077; mkdir -p {FOLDER} && : > {path}.64"
    for at in range(0, len(text), _CHUNK):
        yield f"printf %s {text[at : at + _CHUNK]} >> {path}.64"
    yield f"base64 -d < {path}.64 > {path} && rm {path}.64"
    yield renew(tag, lease_s, must_exist=False)
    unit = shlex.quote(f"railbreak-{tag}")
    yield (
        f"{{ [ -d {SYSTEMD} ] && systemd-run --quiet --collect --unit={unit} /bin/sh {path}; }} "
        f"2>/dev/null || {{ setsid sh {path} </dev/null >/dev/null 2>&1 & }}"
    )


def bound(tag: str, life_s: int) -> str:
    """A command after which the script acts so many seconds from now, whatever is renewed."""
    return f"echo $(({_UP} + {life_s})) > {FOLDER}/{tag}.end"


def stands(tag: str) -> str:
    """A command that succeeds while the script runs."""
    # the first letter in brackets, so that the search does not find itself
    path = f"[{FOLDER[0]}]{FOLDER[1:]}/{tag}.sh"
    return f"cat {lease(tag)} && grep -qsz {shlex.quote(path)} /proc/[0-9]*/cmdline"


def renew(tag: str, lease_s: int, *, must_exist: bool = True) -> str:
    """A command that moves a lease on; it fails when the lease is over."""
    held = lease(tag)
    guard = f"[ -e {held} ] && " if must_exist else ""
    return f"{guard}echo $(({_UP} + {lease_s})) > {held}.new && mv {held}.new {held}"


def guarded(tag: str, do: Sequence[str]) -> str:
    """One command that does, only while the dead-man stands for another second at least."""
    body = " && ".join(f"{{ {line}; }}" for line in do)
    return (
        f"if [ -e {lease(tag)} ] && [ $(cat {lease(tag)}) -gt $(({_UP} + 1)) ]; then {body}; "
        "else echo 'the dead-man is over' >&2; false; fi"
    )


def disarm(tag: str) -> str:
    """A command after which the script ends without acting; safe twice."""
    return f"rm -f {lease(tag)} {FOLDER}/{tag}.end {FOLDER}/{tag}.sh"
