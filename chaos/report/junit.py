"""A record as JUnit XML: one case per finding and per trial; measures as properties."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from chaos.report.wording import measured

Data = Mapping[str, Any]
_UNWRITABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(record: Data) -> str:
    """The document, with its XML declaration.

    fail is a `failure`; inconclusive and blocked are an `error`, since nothing was proved either
    way; a measure without data has the value `null`, never 0.
    """
    data = json.loads(json.dumps(record))
    name = data["experiment"].get("name") or "experiment"
    suite = ET.Element("testsuite", name=f"railbreak.{name}")
    when = data["comparability"].get("started")
    if when:
        suite.set("timestamp", when)
    properties = ET.SubElement(suite, "properties")
    for key, value in _properties(data):
        ET.SubElement(properties, "property", name=_text(key), value=_text(value))
    for finding in data["findings"]:
        _case(suite, name, finding["objective"], finding["verdict"], finding["sentence"], 0.0)
    for trial in data["trials"]:
        kind = "placebo trial" if trial["placebo"] else "trial"
        said = "; ".join(f["sentence"] for f in trial["findings"])
        title = f"{kind} {trial['number']}"
        case = _case(suite, name, title, trial["verdict"], said, _took(trial))
        inner = ET.Element("properties")
        for measure in trial["measures"]:
            value = _text(_value(measure))
            ET.SubElement(inner, "property", name=_text(measure["name"]), value=value)
        case.insert(0, inner)
    _totals(suite)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body}\n'


def _case(
    suite: ET.Element, name: str, title: str, verdict: str, sentence: str, took_s: float
) -> ET.Element:
    case = ET.SubElement(
        suite, "testcase", classname=f"railbreak.{name}", name=_text(title), time=f"{took_s:.3f}"
    )
    kind = {"pass": "system-out", "fail": "failure"}.get(verdict, "error")
    if verdict == "pass":
        ET.SubElement(case, kind).text = _text(sentence)
    else:
        told = ET.SubElement(case, kind, type=verdict, message=_text(sentence))
        told.text = _text(sentence)
    return case


def _properties(data: Data) -> list[tuple[str, str]]:
    block, fabric = data["comparability"], data["fabric"]
    commit = block.get("commit") or {}
    made = [
        ("schema", data["schema"]),
        ("verdict", data["verdict"]),
        ("promise", data["experiment"].get("promise") or ""),
        ("seed", str(data["seed"])),
        ("fabric", fabric.get("name") or ""),
        ("fidelity", fabric.get("fidelity") or ""),
        ("commit", f"{commit.get('id')}{'-dirty' if commit.get('dirty') else ''}"),
    ]
    return made + [(m["name"], _value(m)) for m in data["measures"]]


def _value(measure: Data) -> str:
    if measure["value"] is None:
        return "null"
    return measured(measure) if measure["censored"] else f"{measure['value']:.6g}"


def _took(trial: Data) -> float:
    windows = trial["windows"]
    return (windows["end_ns"] - windows["calm_ns"][0]) / 1e9 if windows else 0.0


def _totals(suite: ET.Element) -> None:
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", str(len(suite.findall("testcase/error"))))
    suite.set("skipped", "0")
    total = sum(float(case.get("time", "0")) for case in suite.findall("testcase"))
    suite.set("time", f"{total:.3f}")


def _text(value: str) -> str:
    return _UNWRITABLE.sub("\ufffd", value)
