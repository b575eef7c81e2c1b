"""What Containerlab and the runtime answer, read from recordings of the real ones."""

import json
from pathlib import Path

import pytest

from chaos.drivers.containerlab import binary, runtime
from chaos.drivers.containerlab.binary import Binary
from chaos.drivers.containerlab.calls import error_of
from chaos.drivers.containerlab.runtime import Box, Runtime
from chaos.errors import CapabilityError, FabricError, SpecError

DATA = Path(__file__).resolve().parents[1] / "data" / "clab"
RECORDED = Path(__file__).resolve().parents[3] / "shared" / "containerlab-recorded" / "recordings"


def steps(lane=None):
    """Every recorded step, as (lane/section/name, step)."""
    for file in sorted(RECORDED.glob("*/*.json")):
        if lane in (None, file.parent.name):
            for step in json.loads(file.read_text()):
                yield f"{file.parent.name}/{file.stem}/{step['name']}", step


needs_recordings = pytest.mark.skipif(
    not RECORDED.is_dir(), reason="the recordings of the real Containerlab are not here"
)


def test_a_build_without_a_version_is_judged_by_its_verbs():
    found = binary.version_in((DATA / "version.txt").read_text())
    verbs = binary.verbs_in((DATA / "help.txt").read_text())

    assert found == (0, 0)
    assert {"deploy", "destroy", "stop", "start", "validate", "tools"} <= verbs
    assert "timeout" not in verbs
    assert Binary(found, verbs).new_enough
    assert Binary(found, verbs).stitches
    assert not Binary(found, verbs - {"stop"}).new_enough
    assert not Binary(found, verbs - {"validate"}).stitches


@pytest.mark.parametrize(
    ("version", "enough", "stitches"),
    [((0, 74), False, False), ((0, 75), True, False), ((0, 78), True, True), ((1, 0), True, True)],
)
def test_versions_have_a_floor(version, enough, stitches):
    found = Binary(version, frozenset())

    assert (found.new_enough, found.stitches) == (enough, stitches)


def test_what_failed_of_exec_is_found_in_the_log():
    failed, *_ = binary.failed_execs((DATA / "deploy_failed_exec.log").read_text())

    assert failed.node == "r2"
    assert failed.command == "ip addr add 192.168.2.1/24 dev lo"
    assert failed.code == 2
    assert failed.said == "Error: ipv4: Address already assigned."


def test_a_wrapped_error_is_one_sentence():
    assert error_of((DATA / "error_block.txt").read_text()) == "Unable to find node zz."


def test_a_container_is_read_with_its_labels():
    (box,) = runtime.boxes_in((DATA / "docker_inspect.json").read_text())

    assert (box.node, box.name, box.lab) == ("a", "clab-t1-a", "t1")
    assert box.runs
    assert box.status == "running"
    assert box.file.endswith("t1.clab.yml")
    assert list(box.networks) == ["clab"]


def test_a_paused_container_and_a_helper_are_told_apart():
    data = json.loads((DATA / "docker_inspect.json").read_text())
    data[0]["State"]["Paused"] = True
    helper = json.loads((DATA / "docker_inspect.json").read_text())[0]
    helper["Config"]["Labels"]["tool-type"] = "sshx"

    found = runtime.boxes_in(json.dumps([*data, helper]))

    assert [box.status for box in found] == ["paused"]


def test_a_networks_bridge_has_the_name_that_docker_gave_it():
    text = (DATA / "docker_network.json").read_text()
    (bridge,) = runtime.bridges_in(text)

    assert bridge.network == "clab"
    assert bridge.name.startswith("br-")
    assert bridge.macs
    assert all(mac.count(":") == 5 for mac in bridge.macs.values())


def box(node, name="x", **more):
    return Box(node, name, f"id-{name}", "t1", 1, "running", "", "", "", **more)


def test_a_node_that_exists_twice_is_refused():
    with pytest.raises(FabricError, match="has node a twice: containers one and two"):
        runtime.by_node("t1", [box("a", "one"), box("a", "two")])


def test_the_runtime_is_chosen_by_what_is_asked_for_and_here(tmp_path):
    for name in ("docker", "podman"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    docker, podman = (str(tmp_path / name) for name in ("docker", "podman"))

    assert Runtime.find({"PATH": docker}).program == "docker"
    assert Runtime.find({"PATH": podman}).program == "podman"
    assert (
        Runtime.find({"PATH": f"{docker}:{podman}", "CLAB_RUNTIME": "podman"}).program == "podman"
    )
    asked = {"PATH": f"{docker}:{podman}", "RAILBREAK_RUNTIME": "docker", "CLAB_RUNTIME": "podman"}
    assert Runtime.find(asked).program == "docker"
    with pytest.raises(CapabilityError, match="podman is not installed here"):
        Runtime.find({"PATH": docker, "RAILBREAK_RUNTIME": "podman"})
    with pytest.raises(CapabilityError, match="docker is not installed here"):
        Runtime.find({"PATH": str(tmp_path)})
    with pytest.raises(SpecError, match="must be docker or podman"):
        Runtime.find({"PATH": docker, "RAILBREAK_RUNTIME": "lxc"})


def test_a_daemon_that_is_gone_is_one_sentence(tmp_path, monkeypatch):
    fake = tmp_path / "docker"
    fake.write_text(
        "#!/bin/sh\necho 'Cannot connect to the Docker daemon at unix:///x. Is it?' >&2; exit 1\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(CapabilityError, match=r"the docker daemon does not answer .*; start it"):
        Runtime().boxes("t1")


@needs_recordings
def test_every_recorded_error_is_a_sentence():
    """Each step that failed with a block of its own gives a sentence without log lines."""
    count = 0
    for name, step in steps():
        said = step.get("stderr") or ""
        if step.get("rc") == 1 and "\n   ERROR" in said:
            count += 1
            found = error_of(said)
            assert found, name
            assert "INFO" not in found, name
            assert "  " not in found, name
    assert count > 50


@needs_recordings
def test_every_recorded_exec_failure_is_found():
    count = 0
    for name, step in steps():
        said = step.get("stderr") or ""
        wanted = said.count("Failed to execute command command=")
        found = binary.failed_execs(said)
        assert len(found) == wanted, name
        assert all(one.node and one.command and one.code for one in found), name
        count += wanted
    assert count > 10


@needs_recordings
def test_every_recorded_inspect_of_a_node_is_read():
    count = 0
    for name, step in steps():
        argv = step.get("argv") or []
        if argv[:2] == ["docker", "inspect"] and step["rc"] == 0 and "-f" not in argv:
            for one in runtime.boxes_in(step["stdout"]):
                count += 1
                assert one.name.endswith(one.node), name
                assert one.runs == (one.status in ("running", "paused")), name
    assert count > 1
