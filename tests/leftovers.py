"""What test runs that were killed left: namespaces and folders that carry their process id."""

import os
import re
import shutil
import subprocess
from pathlib import Path

#: `rb17x3h1`, `rbt17leaf`, `rbc17h1`, `rbp17`, `rbs17n3mgmt`, `railbreak-ssh-17-…`: the first
#: number is the run's.
_NAMESPACE = re.compile(
    r"rb(?=\d+x\d+(?:h1|h2|wire)$|[tc]\d+[a-z]|s\d+n\d+\w|p\d+$)[tcsp]?(\d+)\w*"
)
_FOLDER = re.compile(r"railbreak-ssh-(\d+)-\w+")


def reap(namespaces=Path("/run/netns"), folders=Path("/var/tmp")):
    """Remove what dead runs left; the names. Of a run that lives nothing is touched."""
    found = []
    for folder, pattern in ((namespaces, _NAMESPACE), (folders, _FOLDER)):
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            owner = pattern.fullmatch(entry.name)
            if owner is None or os.path.exists(f"/proc/{owner[1]}"):
                continue
            if folder is namespaces:
                subprocess.run(("ip", "netns", "del", entry.name), check=False)
            else:
                shutil.rmtree(entry)
            found.append(entry.name)
    return found
