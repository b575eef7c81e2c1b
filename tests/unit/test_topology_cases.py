"""What Containerlab itself made of 143 small files, and what our loader makes of them."""

import json
import tempfile
from pathlib import Path

import pytest

from chaos.errors import SpecError
from chaos.topology import lab_json, load_lab, to_fabric

CASES = Path(__file__).resolve().parents[3] / "shared" / "containerlab-cases"
ANSWERS = json.loads((CASES / "answers.json").read_text()) if CASES.is_dir() else {}
if not ANSWERS:
    pytest.skip(f"no recorded answers of Containerlab in {CASES}", allow_module_level=True)

#: The environment in which the answers were made.
ENVIRON = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/home/lab",
    "RB_A": "alpha",
    "RB_EMPTY": "",
    "RB_N": "7",
    "CLAB_VERSION_CHECK": "disable",
}
OTHERWISE = {
    "069-link-macvlan-parent-missing": "asks this machine for an interface; loading is pure",
    "124-kind-names": "kind frr came with Containerlab 0.80, which we follow here",
    "127-vendor-kinds": "a vendor's interface aliases; the embedded fabric refuses such kinds",
    "128-vendor-bad-type": "a vendor's list of types; the embedded fabric refuses such kinds",
}
#: Kinds that add nothing of a vendor's own.
PLAIN_KINDS = ("linux", "bridge", "ovs-bridge", "host", "ext-container")
#: What a vendor kind sets by itself; not read here.
MADE_BY_VENDORS = (
    *("auto_env", "auto_labels", "binds", "cmd", "credentials", "env", "sysctls", "tmpfs"),
    *("type", "user"),
)


def cases():
    for name, answer in ANSWERS.items():
        why = OTHERWISE.get(name)
        marks = [pytest.mark.xfail(reason=why, strict=True)] if why else []
        yield pytest.param(name, answer, marks=marks, id=name)


def as_recorded(value):
    """A value of ours as the recording shows it: its folder is /labs, large numbers are floats."""
    if isinstance(value, str):
        value = value.replace(str(CASES / "cases"), "/labs")
        return value.replace(f"{tempfile.gettempdir()}/.clab", "<tmp>/.clab")
    if isinstance(value, dict):
        return {key: as_recorded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_recorded(item) for item in value]
    large = isinstance(value, int) and abs(value) > 2**53
    return float(value) if large else value


def load(name):
    return load_lab(CASES / "cases" / f"{name}.clab.yml", environ=ENVIRON)


def accepted(answer):
    return [case for case in cases() if case.values[1]["ok"] is answer]


@pytest.mark.parametrize(("name", "answer"), accepted(False))
def test_what_containerlab_refuses_is_refused_with_file_and_line(name, answer):
    with pytest.raises(SpecError) as refusal:
        load(name)

    assert refusal.value.file.endswith(f"{name}.clab.yml")
    assert refusal.value.line is not None or "046" in name, str(refusal.value)
    recorded = answer["error"]
    if "unmarshal errors" in recorded:
        assert f"line {refusal.value.line}:" in recorded


@pytest.mark.parametrize(("name", "answer"), accepted(True))
def test_every_node_has_the_fields_that_containerlab_gives_it(name, answer):
    got = as_recorded(lab_json(load(name)))["nodes"]
    want = as_recorded(answer["lab"])["nodes"]

    for nodes in (got, want):
        for node in nodes.values():
            if node["kind"] not in PLAIN_KINDS:
                for field in MADE_BY_VENDORS:
                    node.pop(field, None)
    assert got == want
    if name in OTHERWISE:  # what differs must be the links, else the mark above is stale
        assert_links(name, answer)


@pytest.mark.parametrize(("name", "answer"), [c for c in accepted(True) if not c.marks])
def test_links_name_prefix_and_management_are_containerlabs(name, answer):
    assert_links(name, answer)


def assert_links(name, answer):
    got = as_recorded(lab_json(load(name)))
    want = as_recorded(answer["lab"])
    for link in got["links"]:
        link.pop("labels", None)  # not in the recording
    for link in (*got["links"], *want.get("links", ())):
        if link["type"] == "macvlan":
            link.pop("mtu")  # the machine's own: the parent interface has it
    assert got["links"] == want.get("links", [])
    assert [got[key] for key in ("name", "prefix", "mgmt")] == [
        want[key] for key in ("name", "prefix", "mgmt")
    ]


@pytest.mark.parametrize(("name", "answer"), [c for c in accepted(True) if not c.marks])
def test_binds_checks_and_warnings_are_containerlabs(name, answer):
    lab = load(name)
    got = as_recorded(lab_json(lab))
    vendor = {node.name for node in lab.nodes.values() if node.kind not in PLAIN_KINDS}

    for key in ("binds_resolved", "volumes_resolved"):
        want = as_recorded(answer.get(key, {}))
        # the recording keeps them only where something was replaced
        assert {n: got[key][n] for n in want if n not in vendor} == {
            n: texts for n, texts in want.items() if n not in vendor
        }
    checks = [check.name for check in lab.checks]
    assert sorted(checks) == sorted(
        check for check, said in answer.get("deploy_checks", {}).items() for _ in said
    )
    warnings = answer.get("warnings", [])
    assert [as_recorded(text) for text in lab.warnings[: len(warnings)]] == warnings


@pytest.mark.parametrize(("name", "answer"), [c for c in accepted(True) if not c.marks])
def test_every_accepted_lab_becomes_a_fabric(name, answer):
    lab = load(name)

    fabric = to_fabric(lab)

    assert sorted(fabric.nodes) == sorted(answer["lab"]["nodes"])
    if not lab.refusals:
        assert len(fabric.links) == len(answer["lab"].get("links", []))
