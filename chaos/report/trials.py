"""The trials of a page: what was done and found in each, its fabric, its timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chaos.report.markup import Markup, tag, text
from chaos.report.sketch import sketch
from chaos.report.timeline import timeline
from chaos.report.wording import NOTHING, VERDICTS, arrows

Data = Mapping[str, Any]


def badge(verdict: str, words: str = "") -> Markup:
    """A verdict with its sign."""
    sign = tag("i", VERDICTS.get(verdict, "?"), aria_hidden="true")
    return tag("span", sign, words or verdict, class_=f"badge {verdict}")


def trials(data: Data) -> Markup | None:
    """All of them, each behind its chip; a sentence where there is none."""
    if not data["trials"]:
        return tag("p", "No trial was run.", class_="absent")
    chips = (
        tag(
            "button",
            tag("i", VERDICTS.get(t["verdict"], "?"), class_=t["verdict"], aria_hidden="true"),
            f"trial {t['number']}",
            tag("small", "placebo") if t["placebo"] else None,
            type="button",
            role="tab",
            data_trial=t["number"],
        )
        for t in data["trials"]
    )
    return text(
        tag("nav", chips, class_="chips", role="tablist"),
        (_trial(t, data["fabric"]) for t in data["trials"]),
    )


def _trial(trial: Data, fabric: Data) -> Markup:
    title = f"Trial {trial['number']}" + (", placebo" if trial["placebo"] else "")
    facts = (
        ("faults", strikes)
        if (strikes := _strikes(trial))
        else ("fault", tag("code", trial["fault"]) if trial["fault"] else "none: a placebo trial"),
        ("exposure", arrows(trial["exposure"]["sentence"] or NOTHING)),
        ("path", _path(trial["exposure"]["path"])),
        ("job", _fate(trial)),
        ("host load", _load(trial["load"])),
        ("seed", trial["seed"]),
    )
    told = [f for f in trial["findings"] if f["verdict"] != "pass"]
    return tag(
        "article",
        tag("h3", title, badge(trial["verdict"])),
        tag("ul", (tag("li", arrows(f["sentence"])) for f in told), class_="doubts")
        if told
        else None,
        tag(
            "div",
            tag("dl", ((tag("dt", k), tag("dd", v)) for k, v in facts if v), class_="pairs"),
            tag("figure", sketch(fabric, trial)),
            class_="scene",
        ),
        timeline(trial),
        class_="trial",
        data_number=trial["number"],
    )


def _strikes(trial: Data) -> Markup | None:
    """Where several faults struck in one storm: each with its time, and what was left out."""
    found = trial.get("strikes") or ()
    if len(found) < 2 and not trial.get("left_out"):
        return None
    lines = [
        text(
            f"{one['at_ns'] / 1e6:g}–{one['until_ns'] / 1e6:g} ms ",
            tag("b", f"{one['label']} ") if one.get("label") else None,
            tag("code", one["text"]),
            "" if one["exposed"] is not False else ", not met by the measured traffic",
        )
        for one in found
    ]
    return tag("div", (tag("div", one) for one in (*lines, *(trial.get("left_out") or ()))))


def _path(path: Sequence[str]) -> Markup | None:
    return tag("div", (tag("div", arrows(one)) for one in path[:6])) if path else None


def _fate(trial: Data) -> str | None:
    job = trial["extra"].get("collective") or {}
    error = f": {job['error']}" if job.get("error") else ""
    return f"{job['fate']}{error}" if job.get("fate") else None


def _load(load: Data) -> str | None:
    words = {"busy_percent": "busy", "foreign_percent": "by others", "stolen_percent": "stolen"}
    found = [f"{load[key]:.0f} % {words[key]}" for key in words if load.get(key) is not None]
    return ", ".join(found) or None
