"""The judged records of the variants, kept: one line of JSON each, and a table of them all.

    python -m suites.keep RUNS OUT.jsonl.gz > TABLE.md
    python -m suites.keep --add RUNS OUT.jsonl.gz > TABLE.md    # what OUT has besides stays in it

RUNS is the folder that `pytest suites/test_variants.py --runs RUNS` filled. Left out of a kept
record, for its size: what was measured over time (`series`, `spans`, `extra`), the plan, and the
fabric, which is the same in all.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LEFT_OUT = ("series", "spans", "extra")
HEAD = "| fault | in force | acted | felt | noticed by | taken back | residue | verdict |"


def records(folder: Path) -> Iterable[dict[str, Any]]:
    """The records of variants in a folder of runs, in the order in which they were made."""
    for path in sorted(folder.glob("*/record.json"), key=lambda one: one.stat().st_mtime):
        record = json.loads(path.read_text())
        ours = "test_variants.py" in " ".join(record["comparability"]["command"])
        if ours and record["trials"]:
            yield kept(record)


def kept(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what is large."""
    trials = [
        {key: value for key, value in trial.items() if key not in LEFT_OUT}
        for trial in record["trials"]
    ]
    rest = {key: value for key, value in record.items() if key not in ("plan", "fabric", "trials")}
    fabric = record["fabric"]
    experiment = {**record["experiment"], "fabric": fabric["name"]}  # it may have been a file
    return {**rest, "experiment": experiment, "driver": fabric["driver"], "trials": trials}


def told(record: Mapping[str, Any]) -> str:
    """The fault in words."""
    return ", ".join(one["text"] for one in record["experiment"]["faults"])


def row(record: Mapping[str, Any]) -> str:
    """One line of the table."""
    [trial] = record["trials"]
    proof = trial["proof"]
    acted = "not counted" if proof["hit"] is None else f"{proof['hit']}"
    if (proof["seen"] or 0) > (proof["hit"] or 0):
        acted = f"{proof['hit']} of {proof['seen']}"
    cells = (
        f"`{told(record)}`",
        _yes(proof["in_force"]),
        acted,
        ", ".join(_felt(record)) or "–",
        ", ".join(_noticed(record)) or "nobody",
        _yes(proof["taken_back"]),
        "not looked for" if proof["residue"] is None else "; ".join(proof["residue"]) or "none",
        record["verdict"],
    )
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _felt(record: Mapping[str, Any]) -> Iterable[str]:
    """What the objectives asked for, as it was."""
    asked = (one["sentence"].partition(":")[0] for one in record["experiment"]["objectives"])
    values = {one["name"]: one["value"] for one in record["measures"]}
    for name in dict.fromkeys(asked):
        if values.get(name) is not None:
            yield f"{name} {values[name]:.4g}"


def _noticed(record: Mapping[str, Any]) -> Iterable[str]:
    for one in record["measures"]:
        found = re.fullmatch(r"detection_(\w+)_ms", one["name"])
        if found and found[1] != "first" and one["value"] is not None and not one["censored"]:
            yield f"{found[1]} {one['value']:.3g} ms"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main(runs: str, out: str, add: bool = False) -> None:
    """Write the records, the last of each variant, and print the table."""
    before = gzip.decompress(Path(out).read_bytes()).splitlines() if add else []
    found = [*map(json.loads, before), *records(Path(runs))]
    last = {one["experiment"]["promise"]: one for one in found}
    kinds = sorted(last.values(), key=lambda one: (told(one), one["experiment"]["promise"]))
    lines = "".join(json.dumps(one, separators=(",", ":")) + "\n" for one in kinds)
    Path(out).write_bytes(gzip.compress(lines.encode(), mtime=0))
    table = [HEAD, "|" + "---|" * (HEAD.count(" | ") + 1), *map(row, kinds)]
    sys.stdout.write("\n".join(table) + "\n")


if __name__ == "__main__":
    folder, file = (word for word in sys.argv[1:] if word != "--add")
    main(folder, file, add="--add" in sys.argv)
