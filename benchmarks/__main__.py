"""Run benchmarks, print one table, keep every sample: `python -m benchmarks [NAME …]`."""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import time
from pathlib import Path

from benchmarks.ground import ROOT, machine, need, remove_dead, sentence
from benchmarks.reading import Outcome, table, to_json
from benchmarks.ssh_skew import HOSTS
from chaos.errors import RailbreakError, exit_status

NAMES = (
    *("link_down", "lateness", "events", "deploy", "converged", "lab_link", "ssh_skew"),
    "packet_engines",
)
_INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Everything; the exit status."""
    asked = arguments(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    signal.signal(signal.SIGTERM, _terminated)
    try:
        need("ip", "nft", "unshare")
        remove_dead()
        return _measure(asked)
    except KeyboardInterrupt:
        print("interrupted; everything was taken down", file=sys.stderr)
        return _INTERRUPTED
    except RailbreakError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return exit_status(error)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """What was asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)}; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="fewer samples, below a minute")
    parser.add_argument(
        "--hosts",
        type=int,
        default=HOSTS,
        metavar="N",
        help=f"hosts of ssh_skew, an even number (default: {HOSTS})",
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=ROOT / "runs" / "benchmarks.json",
        metavar="FILE",
        help="where every sample is kept (default: runs/benchmarks.json)",
    )
    asked = parser.parse_args(argv)
    unknown = [name for name in asked.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if asked.hosts < 2 or asked.hosts % 2:
        parser.error(f"--hosts {asked.hosts}: hosts come in pairs; give an even number from 2 on")
    return asked


def _measure(asked: argparse.Namespace) -> int:
    begun = time.monotonic()
    facts = machine()
    facts["quick"] = asked.quick
    print(sentence(facts), file=sys.stderr, flush=True)

    def tell(step: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {step}", file=sys.stderr, flush=True)

    outcomes: list[Outcome] = []
    for name in asked.names or NAMES:
        room = importlib.import_module(f"benchmarks.{name}")
        more = {"hosts": asked.hosts} if name == "ssh_skew" else {}
        outcomes.append(room.run(asked.quick, tell, **more))
    facts["took_s"] = round(time.monotonic() - begun, 1)
    print(f"{sentence(facts)}; taken {facts['at']} in {facts['took_s']} s\n")
    print(table(outcomes))
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(to_json(outcomes, facts), indent=1) + "\n")
    print(f"every sample: {asked.json}", file=sys.stderr)
    return 0


def _terminated(number: int, frame: object) -> None:
    signal.raise_signal(signal.SIGINT)  # which asyncio turns into an orderly end


if __name__ == "__main__":
    sys.exit(main())
