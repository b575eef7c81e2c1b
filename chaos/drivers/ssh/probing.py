"""What this machine can do over SSH."""

from __future__ import annotations

import os
from pathlib import Path

from chaos.driver import Capability


def probe() -> tuple[Capability, ...]:
    """Whether there is a key to log in with, and a file of host keys to trust."""
    keys = [str(one) for one in Path("~/.ssh").expanduser().glob("id_*") if one.suffix != ".pub"]
    agent = os.path.exists(os.environ.get("SSH_AUTH_SOCK", ""))
    has_key = bool(keys or agent)
    known = Path("~/.ssh/known_hosts").expanduser().is_file()
    return (
        Capability(
            "ssh key",
            has_key,
            "" if has_key else "no key in ~/.ssh and no agent",
            "" if has_key else "name a key in the inventory, or start an agent and ssh-add one",
        ),
        Capability(
            "ssh host keys",
            known,
            "" if known else "no ~/.ssh/known_hosts",
            "" if known else "connect to each machine once by hand, comparing its key",
        ),
    )
