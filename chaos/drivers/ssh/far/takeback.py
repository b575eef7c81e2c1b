"""Takes back, or looks at, what another machine's journal says was done here.

    python3 FILE.pyz chaos.drivers.ssh.far.takeback undo|status < ENTRIES

ENTRIES is a JSON list of the `intended` lines, as they lie in the controller's journal.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from chaos import deadman, recover
from chaos.journal import open_changes


def main() -> None:
    """Print one JSON list: an outcome per entry."""
    lines = json.load(sys.stdin)
    with tempfile.TemporaryDirectory(prefix="railbreak-") as folder:
        path = Path(folder) / "journal.jsonl"
        path.write_text("".join(json.dumps(_here(line)) + "\n" for line in lines))
        json.dump(_undo(path) if sys.argv[1] == "undo" else _status(path, lines), sys.stdout)


def _here(line: dict[str, Any]) -> dict[str, Any]:
    """The entry as this machine's own."""
    return {**line, "where": {**line["where"], "host": ""}}


def _undo(path: Path) -> list[dict[str, Any]]:
    found = recover.undo([path])
    left = {one.entry.saved.get("deadman") for one in found if one.leftover}
    for folder in {str(one.entry.saved.get("deadman", "")) for one in found} - left - {""}:
        deadman.disarm(Path(folder))
    return [{"id": one.entry.id, "outcome": one.outcome, "reason": one.reason} for one in found]


def _status(path: Path, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    seen = {line["id"] for line in lines if line.get("seen_in_force")}
    found = []
    for entry in open_changes(path):
        status = recover.look(entry)
        reason, in_force = status.reason, status.in_force
        if in_force is False and entry.id in seen and not status.held and not reason:
            in_force, reason = None, "somebody undid it, perhaps in part"
        found.append({"id": entry.id, "in_force": in_force, "held": status.held, "reason": reason})
    return found


if __name__ == "__main__":
    main()
