"""What was in force when: a lane per fault of a trial, and each of its turns on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chaos.report.axis import Clock, bar, in_force, lane
from chaos.report.markup import Markup
from chaos.report.wording import milliseconds, plural, since

Data = Mapping[str, Any]


def struck(trial: Data, clock: Clock) -> list[Markup]:
    """By what the injector did and the kernel acknowledged; nothing in a placebo."""
    changes, actions = trial["proof"]["changes"], trial["proof"]["actions"]
    found = trial.get("strikes") or ()
    made = []
    for number, one in enumerate(found):
        mine = {at for at, change in enumerate(changes) if change.get("strike") == number}
        spans = in_force([a for a in actions if a["change"] in mine], clock)
        bars = (
            bar(
                round(start, 3),
                round(end, 3),
                "held",
                f"{one['text']}: from {since(start)} for {milliseconds(end - start)}",
            )
            for start, end in spans
        )
        if spans:
            start, end = spans[0]
            note = plural(len(spans), "turn") if len(spans) > 1 else milliseconds(end - start)
            made.append(lane(one.get("label") or one["fault"], *bars, kind="struck", note=note))
    return made
