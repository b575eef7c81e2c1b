"""What makes the records of a flow doubtful: missing, late, overflowed, clocks stepped; pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

Record = dict[str, Any]
CLOCK_STEP_NS = 1_000_000
SILENT_NS = 1_000_000_000


def trouble(sender: Sequence[Record], receiver: Sequence[Record]) -> list[str]:
    """One sentence per doubt."""
    return [*_sender_trouble(sender), *_receiver_trouble(receiver), *_silence(sender, receiver)]


def _sender_trouble(records: Sequence[Record]) -> list[str]:
    sentences = _process_trouble("sender", records)
    batches = [record for record in records if record["ev"] == "sent"]
    ends = [batch["first"] + len(batch["at"]) for batch in batches]
    for end, following in zip(ends, batches[1:], strict=False):
        if following["first"] != end:
            sentences.append(f"flow: the sender's records lack numbers from {end}")
            break
    totals = [record["slots"] for record in records if record["ev"] == "end"]
    if totals and ends and totals[0] != ends[-1]:
        sentences.append(f"flow: the sender counted {totals[0]} numbers and told {ends[-1]}")
    return sentences


def _receiver_trouble(records: Sequence[Record]) -> list[str]:
    sentences = _process_trouble("receiver", records)
    batches = [record for record in records if record["ev"] == "got"]
    for before, after in pairwise(batches):
        if before["received"] + len(after["slots"]) != after["received"]:
            sentences.append("flow: the receiver told fewer packets than it counted")
            break
    for before, after in pairwise(batches):
        overflowed = after["buffer_errors"] - before["buffer_errors"]
        if after["dropped"] > before["dropped"] and overflowed:
            sentences.append(
                f"flow: the receiver's own buffer overflowed ({overflowed} packets); "
                "they would look like losses"
            )
            break
    offsets = [batch["clock_offset"] for batch in batches]
    step = max((abs(b - a) for a, b in pairwise(offsets)), default=0)
    if step > CLOCK_STEP_NS:
        sentences.append(f"flow: the wall clock stepped by {step / 1e6:.1f} ms during the trial")
    return sentences


def _process_trouble(who: str, records: Sequence[Record]) -> list[str]:
    if not any(record["ev"] == "ready" for record in records):
        return [f"flow: the {who} never became ready"]
    numbers = [record["n"] for record in records if "n" in record and record["ev"] != "ready"]
    if any(b != a + 1 for a, b in pairwise(numbers)):
        return [f"flow: records of the {who} are missing"]
    return []


def _silence(sender: Sequence[Record], receiver: Sequence[Record]) -> list[str]:
    """One side that stopped telling while the other went on."""
    sent = max((record["t"] for record in sender if record["ev"] == "sent"), default=0)
    got = max((record["until"] for record in receiver if record["ev"] == "got"), default=0)
    if abs(sent - got) <= SILENT_NS:
        return []
    who, missing_s = ("receiver", sent - got) if got < sent else ("sender", got - sent)
    return [f"flow: the {who} fell silent {missing_s / 1e9:.1f} s before the other side did"]
