"""The report: one HTML page that opens offline, tells the verdict first, and proves it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

from chaos.abridged import abridged
from chaos.report.markup import Markup, tag, text
from chaos.report.spread import detectors, distributions
from chaos.report.trials import badge, trials
from chaos.report.wording import (
    NOTHING,
    VERDICTS,
    arrows,
    bounds,
    count,
    measured,
    plural,
    split,
    yes_no,
)

Data = Mapping[str, Any]
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
HEADLINES = {
    "pass": "Promise kept",
    "fail": "Promise broken",
    "inconclusive": "No verdict",
    "blocked": "Not tried",
}
WORST_FIRST = {"fail": 0, "blocked": 1, "inconclusive": 1, "pass": 2}
#: The first numbers a reader wants, as far as the run has them.
KEY_MEASURES = (
    ("flow_lost_packets", "lost by the flow"),
    ("flow_outage_longest_ms", "longest outage"),
    ("detection_first_ms", "until first noticed"),
    ("job_stall_ms", "the job stood still"),
    ("job_recovery_ms", "until the job was back"),
)


def page(record: Data) -> str:
    """The whole page.

    Args:
        record: As `chaos.record.to_json` makes it or a record's file holds it.
    """
    data = json.loads(json.dumps(record))  # tuples and enums as a file has them
    for trial in data["trials"]:
        trial["events"] = [e for e in data["events"] if e["trial"] == trial["number"]]
    body = text(
        _header(data),
        _section("Findings", "what was promised, and what was found", _findings(data)),
        _section("Who noticed", "from the fault to each detector's first word", detectors(data)),
        _section("Trials", "drag to zoom, double-click for the whole trial", trials(data)),
        _section("Measures", "median with its 95 % interval; below six trials, the range",
                 distributions(data)),
        _section("Proof", "that the fault was there, acted, and is gone", _proof(data)),
        _section("Plan", "every command, in order", _plan(data)),
        _section("To repeat it", "and to know what these figures may be compared with",
                 _repeat(data)),
        tag("footer", f"railbreak · {data['schema']}"),
    )  # fmt: skip
    name = data["experiment"].get("name", "")
    head = (
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", f"{data['verdict'].upper()} · {name} · railbreak"),
        tag("link", rel="icon", href=_icon(data["verdict"])),
        tag("style", Markup(_template("style.css"))),
    )
    script = tag("script", Markup(_template("script.js")))
    main = tag("body", tag("main", body), script, class_=data["verdict"])
    whole = f"<!doctype html>\n{tag('html', tag('head', head), main, lang='en')}\n"
    return whole.encode("utf-8", "replace").decode()


def _template(name: str) -> str:
    return files("chaos.report").joinpath("template", name).read_text(encoding="utf-8")


def _icon(verdict: str) -> str:
    colour = {"pass": "1b7f5c", "fail": "c43d2f"}.get(verdict, "a86a00")
    return (
        "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>"
        f"<circle cx='8' cy='8' r='7' fill='%23{colour}'/></svg>"
    )


def _section(title: str, lead: str, content: Markup | None) -> Markup | None:
    if not content:
        return None
    name = title.split()[0].lower()
    return tag("section", tag("h2", title, tag("small", lead)), content, id=name, class_="part")


def _header(data: Data) -> Markup:
    experiment, fabric = data["experiment"], data["fabric"]
    real = sum(not t["placebo"] for t in data["trials"])
    sham = len(data["trials"]) - real
    tried = " and ".join(
        plural(number, word) for number, word in ((real, "trial"), (sham, "placebo")) if number
    )
    host = data["comparability"].get("host") or {}
    line = (
        experiment.get("name"),
        f"{fabric.get('name')} by {fabric.get('driver')}",
        f"fidelity: {fabric.get('fidelity')}",
        tried or "no trial",
        f"seed {data['seed']}",
        f"load {host['load1']:.1f} on {plural(host['cores'], 'core')}" if host else None,
    )
    stamp = tag(
        "div",
        tag("b", VERDICTS.get(data["verdict"], "?"), aria_hidden="true"),
        tag("span", HEADLINES.get(data["verdict"], data["verdict"])),
        tag("small", _score(data["findings"])),
        class_=f"stamp {data['verdict']}",
    )
    return tag(
        "header",
        tag("div", tag("span", "railbreak", class_="brand"),
            tag("button", "◐", id="theme", type="button", title="light or dark"), class_="bar"),
        tag("div", tag("div", tag("h1", experiment.get("promise") or experiment.get("name")),
            tag("p", (tag("span", word) for word in line if word), class_="facts")),
            stamp, class_="hero"),
        _command(data),
        _key_numbers(data),
    )  # fmt: skip


def _score(findings: Sequence[Data]) -> str:
    if not findings:
        return "nothing was checked"
    held = sum(f["verdict"] == "pass" for f in findings)
    return f"{held} of {plural(len(findings), 'finding')} as promised"


def _command(data: Data) -> Markup:
    block = data["comparability"]
    command = shlex.join(block.get("command") or []) or NOTHING
    return tag(
        "p",
        tag("code", command),
        tag("button", "copy", type="button", class_="copy", data_copy=command),
        tag("span", _commit(block)),
        class_="command",
    )


def _commit(block: Data) -> str:
    commit = block.get("commit") or {}
    if not commit.get("id"):
        return f"version {commit.get('version') or NOTHING}"
    return f"commit {commit['id'][:12]}, {'dirty' if commit.get('dirty') else 'clean'}"


def _key_numbers(data: Data) -> Markup | None:
    by_name = {m["name"]: m for m in data["measures"]}
    found = [(by_name[n], words) for n, words in KEY_MEASURES if by_name.get(n, {}).get("n")]
    found = [(m, words) for m, words in found if m["value"] is not None]
    if not found:
        return None
    cells = (
        tag("div", tag("b", measured(m)), tag("span", words), tag("small", bounds(m) or "\u00a0"))
        for m, words in found
    )
    return tag("div", cells, class_="keys")


def _findings(data: Data) -> Markup | None:
    if not data["findings"]:
        return tag("p", "Nothing was checked, so nothing is proved.", class_="absent")
    rows = []
    for finding in sorted(data["findings"], key=lambda f: WORST_FIRST.get(f["verdict"], 1)):
        subject, expected, got = split(arrows(finding["sentence"]))
        of = f"trial {finding['trial']}" if finding.get("trial") is not None else None
        rows.append(
            tag(
                "li",
                badge(finding["verdict"]),
                tag("div", tag("h3", subject, tag("small", of) if of else None),
                    tag("p", finding["because"]) if finding["because"] else None, class_="what"),
                tag("dl", tag("dt", "expected"), tag("dd", expected), tag("dt", "got"),
                    tag("dd", got)) if expected else None,
                class_=finding["verdict"],
            )
        )  # fmt: skip
    return tag("ul", rows, class_="findings")


def _proof(data: Data) -> Markup | None:
    head = ("trial", "in force", "seen", "acted", "taken back", "left behind", "exposed", "changes")
    rows = []
    for trial in data["trials"]:
        proof, exposure = trial["proof"], trial["exposure"]
        residue = proof["residue"]
        number = f"{trial['number']}{' placebo' if trial['placebo'] else ''}"
        cells = (
            yes_no(proof["in_force"]),
            count(proof["seen"]),
            count(proof["hit"]),
            yes_no(proof["taken_back"]),
            _residue(residue),
            yes_no(exposure["exposed"]),
            _changes(proof),
        )
        bad = residue or proof["taken_back"] is False
        rows.append(
            tag("tr", tag("th", number, scope="row"), (tag("td", c) for c in cells),
                class_="bad" if bad else ("sham" if trial["placebo"] else None))
        )  # fmt: skip
    table = tag("table", tag("thead", tag("tr", (tag("th", h) for h in head))), tag("tbody", rows))
    return tag("div", table, class_="wide proof") if rows else None


def _residue(residue: list[str] | None) -> Any:
    if residue is None:
        return "not compared"
    return tag("ul", (tag("li", one) for one in residue)) if residue else "nothing"


def _changes(proof: Data) -> Any:
    if not proof["changes"]:
        return NOTHING
    lines = []
    for change in proof["changes"]:
        hit = "" if change["hit"] is None else f", acted {count(change['hit'])}"
        cure = f"; cure: {change['cure']}" if change.get("cure") else ""
        lines.append(tag("div", tag("code", change["text"]), f"{hit}{cure}"))
    return text(lines, (tag("div", one, class_="late") for one in proof["late"]))


def _plan(data: Data) -> Markup | None:
    """Line by line; one that is too long to be read opens to all of it."""
    lines = []
    for line in data["plan"]:
        short = abridged(line)
        whole = tag("details", tag("summary", short), line.strip()) if short != line else None
        inset = len(line) - len(line.lstrip()) + 4
        lines.append(tag("div", whole or line, class_="line", style=f"--in:{max(11, inset)}ch"))
    return tag("pre", lines) if lines else None


def _repeat(data: Data) -> Markup:
    block, fabric = data["comparability"], data["fabric"]
    host = block.get("host") or {}
    versions = block.get("versions") or {}
    memory = f"{plural(host['cores'], 'core')}, {host['memory_gib']} GiB" if host else NOTHING
    rows: Iterable[tuple[str, Any]] = (
        ("command", tag("code", shlex.join(block.get("command") or []))),
        ("commit", _commit(block).removeprefix("commit ")),
        ("seed", data["seed"]),
        ("fabric", f"{fabric.get('name')}: {len(fabric.get('nodes') or {})} nodes, "
                   f"{len(fabric.get('links') or [])} links"),
        ("driver", fabric.get("driver")),
        *(("note", sentence) for sentence in fabric.get("notes") or ()),
        ("fidelity", f"{block.get('fidelity')} (never compare with another)"),
        ("started", _when(block.get("started"))),
        ("kernel", block.get("kernel")),
        ("host", memory),
        ("load at start", f"{host['load1']:.2f}" if host else None),
        *((name, version or "absent") for name, version in versions.items()),
    )  # fmt: skip
    pairs = ((tag("dt", k), tag("dd", v)) for k, v in rows if v not in (None, ""))
    return tag("dl", pairs, class_="pairs repeat")


def _when(started: str | None) -> str | None:
    if not started:
        return None
    return datetime.fromisoformat(started).strftime("%-d %B %Y, %H:%M:%S %Z")
