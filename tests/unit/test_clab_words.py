"""What Containerlab and the runtime answer, read from recordings of the real ones."""

import asyncio
import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.drivers.containerlab import binary, runtime
from chaos.drivers.containerlab.binary import Binary
from chaos.drivers.containerlab.calls import error_of
from chaos.drivers.containerlab.nodes import Nodes
from chaos.drivers.containerlab.runtime import Box, Runtime
from chaos.drivers.state import start_ticks
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


def stand_in(folder, name, script):
    """A program of that name that says what a script says: a stand-in for the real one."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


@pytest.fixture
def podman_socket(tmp_path, monkeypatch):
    """A socket where podman's would be; a stand-in: nobody speaks its language there."""
    path = tmp_path / "podman.sock"
    monkeypatch.setattr(runtime, "SOCKET", path)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        yield path


def test_the_runtime_is_chosen_by_what_is_asked_for_and_here(tmp_path, podman_socket):
    docker, podman = (str(tmp_path / name) for name in ("docker", "podman"))
    stand_in(tmp_path / "docker", "docker", "")
    stand_in(tmp_path / "podman", "podman", "")

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


def test_podman_is_asked_at_the_socket_that_containerlab_uses(tmp_path, podman_socket):
    """By a stand-in for `podman`: it answers `--url unix://SOCKET info`, or is not reached."""
    asked = tmp_path / "asked"
    stand_in(tmp_path / "p", "podman", f'echo "$@" > {asked}')
    alone = {"PATH": str(tmp_path / "p")}

    assert Runtime.find(alone).program == "podman"
    assert asked.read_text().split() == ["--url", f"unix://{podman_socket}", "info"]

    stand_in(
        tmp_path / "p", "podman", "echo 'Error: unable to connect to Podman socket' >&2; exit 125"
    )
    with pytest.raises(CapabilityError, match=r"nobody answers at .*podman.sock .*; systemctl"):
        Runtime.find(alone)

    podman_socket.unlink()
    with pytest.raises(CapabilityError, match=r"there is no socket .*; systemctl start podman"):
        Runtime.find(alone)


GONE = {
    "docker 20": "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
    "docker 29": (
        "failed to connect to the docker API at unix:///x.sock; check if the path is correct and "
        "if the daemon is running: dial unix /x.sock: connect: no such file or directory"
    ),
    "tcp": "error during connect: Get http://h:2375/v1.41/info: dial tcp: lookup h: no such host",
    "podman": "Cannot connect to Podman. Please verify your connection to the Linux system",
}


@pytest.mark.parametrize("said", GONE.values(), ids=GONE)
def test_a_daemon_that_is_gone_is_one_sentence(tmp_path, monkeypatch, said):
    """Whatever is asked: containers, an image, or a command in a node; by a stand-in for docker."""
    monkeypatch.setenv("PATH", stand_in(tmp_path, "docker", f"echo '{said}' >&2; exit 1"))
    nodes = Nodes(Runtime(), "t1", ("a",))
    nodes._boxes = {"a": replace(box("a", "one"), pid=os.getpid())}
    nodes._ticks = {"a": start_ticks(os.getpid())}

    for ask in (
        lambda: Runtime().boxes("t1"),
        lambda: Runtime().has_image("x"),
        lambda: asyncio.run(nodes.exec("a", ("true",), b"", 5.0)),
    ):
        with pytest.raises(
            CapabilityError, match=r"the docker daemon does not answer .*; start it"
        ):
            ask()


def test_a_commands_own_failure_is_not_the_daemons(tmp_path, monkeypatch):
    """What a command in a node says of a daemon of its own is its answer; by a stand-in."""
    script = "test $1 = version && exit 0; echo 'Cannot connect to the Docker daemon' >&2; exit 1"
    monkeypatch.setenv("PATH", stand_in(tmp_path, "docker", script))
    nodes = Nodes(Runtime(), "t1", ("a",))
    nodes._boxes = {"a": replace(box("a", "one"), pid=os.getpid())}
    nodes._ticks = {"a": start_ticks(os.getpid())}

    assert asyncio.run(nodes.exec("a", ("true",), b"", 5.0)).code == 1


def test_an_image_that_is_not_here_is_told_from_no_answer(tmp_path, monkeypatch):
    missing = "echo '[]'; echo 'Error: No such image: x' >&2; exit 1"
    monkeypatch.setenv("PATH", stand_in(tmp_path, "docker", missing))
    assert not Runtime().has_image("x")
    monkeypatch.setenv("PATH", stand_in(tmp_path, "docker", "echo 'read: i/o timeout' >&2; exit 1"))
    with pytest.raises(FabricError, match=r"docker image inspect x: read: i/o timeout"):
        Runtime().has_image("x")


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
