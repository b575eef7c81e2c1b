"""Ansible's ad-hoc command as a peer: the same inventory, warm connections, no Python on the hosts.

It is found in a virtual environment of its own below `.cache/`, or on the path.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from benchmarks.ground import ROOT
from chaos.errors import FabricError

ABSENT = (
    "Ansible is not on this machine; to compare with it: python3 -m venv .cache/ansible && "
    ".cache/ansible/bin/pip install ansible-core"
)
_MAY_TAKE_S = 900.0
_SETTINGS = """
[defaults]
host_key_checking = True
timeout = 120
[ssh_connection]
pipelining = True
control_path_dir = {folder}/cp
ssh_args = -o ControlMaster=auto -o ControlPersist=1800
"""


def command() -> str | None:
    """The program `ansible`; None where it is absent."""
    own = ROOT / ".cache" / "ansible" / "bin" / "ansible"
    return str(own) if own.exists() else shutil.which("ansible")


def version(program: str) -> str:
    """What it says of itself, such as `2.19.4`."""
    said = subprocess.run((program, "--version"), capture_output=True, text=True, check=False)
    found = re.search(r"core (\S+?)\]", said.stdout)
    return found[1] if found else "unknown"


class Ansible:
    """Runs ad-hoc commands on all hosts of an inventory.

    Args:
        program: `ansible`.
        inventory: Of the hosts.
        folder: For its settings, its log and the sockets of its connections.
    """

    def __init__(self, program: str, inventory: Path, folder: Path) -> None:
        self._program, self._inventory, self._folder = program, inventory, folder
        settings = folder / "ansible.cfg"
        settings.write_text(_SETTINGS.format(folder=folder))
        self._env = os.environ | {
            "ANSIBLE_CONFIG": str(settings),
            "ANSIBLE_HOME": str(folder / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
        }

    def run(self, forks: int, words: str) -> float:
        """A raw command on every host; seconds that it took.

        Raises:
            FabricError: it failed on a host; its last words.
        """
        argv = (self._program, "all", "-i", str(self._inventory), "-f", str(forks))
        log = self._folder / "ansible.log"
        before = time.monotonic()
        with log.open("w") as out:
            done = subprocess.run(
                (*argv, "-m", "raw", "-a", words),
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=_MAY_TAKE_S,
                check=False,
            )
        took = time.monotonic() - before
        if done.returncode:
            wrong = [line for line in log.read_text().splitlines() if "| CHANGED" not in line]
            raise FabricError(f"ansible -f {forks} -a {words!r}: {' / '.join(wrong[-3:])}")
        return took

    def let_go(self) -> int:
        """End the connections that it keeps; how many there were."""
        ended = 0
        marker = f"{self._folder}/cp".encode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if marker in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGTERM)
                    ended += 1
        return ended
