"""Fixtures of tests that deploy on the real Containerlab; `make lab-test` runs them."""

import itertools
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

_numbers = itertools.count()


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "alone: judges instants or calm, so `make lab-test` runs it beside no other lab"
    )


NETWORK = """mgmt:
  network: {name}-net
  ipv4-subnet: {four}
  ipv6-subnet: {six}

"""


class Lab:
    """A topology deployed by the plain binary: `run(node, *argv)` runs a command in a node.

    It is a copy of the file's folder in which nothing but `name:` differs (Containerlab's own
    `--name` cannot be destroyed again: `destroy` looks for the name in the file).
    `left()` lists what there is of it on this machine right now; nothing, after `destroy`.
    `state()` is everything of it that attaching to it must leave as it is.
    """

    def __init__(self, runtime, file, name, folder):
        self.runtime = runtime
        self.name = name
        self.folder = folder
        shutil.copytree(file.parent, folder)
        self.file = folder / file.name
        text, changed = re.subn(r"(?m)^name: .*$", f"name: {name}", file.read_text())
        assert changed == 1, f"{file} has {changed} lines `name:`"
        self.file.write_text(text)

    def deploy(self):
        self._containerlab("deploy")
        return self

    def destroy(self):
        self._containerlab("destroy", "--cleanup")

    def container(self, node):
        return f"clab-{self.name}-{node}"

    def nodes(self):
        """The names of the nodes that run, sorted."""
        told = must(
            "docker", "ps", "--filter", f"label=containerlab={self.name}", "--format", "{{.Names}}"
        )
        return sorted(name.removeprefix(f"clab-{self.name}-") for name in told.split())

    def run(self, node, *argv):
        """What a command in a node prints; it must succeed."""
        return must("docker", "exec", self.container(node), *argv)

    def tell(self, node, command):
        """What FRR in a node answers, as JSON."""
        return json.loads(self.run(node, "vtysh", "-c", f"{command} json"))

    def state(self):
        found = {}
        while any("tentative" in self.run(name, "ip", "addr") for name in self.nodes()):
            time.sleep(0.1)  # the kernel itself is not done yet
        for name in self.nodes():
            facts = json.loads(must("docker", "inspect", self.container(name)))[0]
            links = json.loads(self.run(name, "ip", "-j", "link"))
            found[name] = (
                facts["Id"],
                facts["State"]["StartedAt"],
                facts["State"]["Pid"],
                [(one["ifindex"], one["ifname"], one["address"], one["mtu"]) for one in links],
                self.run(name, "ip", "addr"),
                sorted(self.run(name, "ip", "route", "show", "table", "all").splitlines()),
                self.run(name, "nft", "list", "ruleset"),
            )
        return found

    def left(self):
        mark = f"clab-{self.name}"
        listings = {
            "container": must("docker", "ps", "-a", "--format", "{{.Names}}"),
            "network": must("docker", "network", "ls", "--format", "{{.Name}}"),
            "/run/netns": "\n".join(os.listdir("/run/netns")),
            "/etc/hosts": Path("/etc/hosts").read_text(),
            "ssh_config.d": "\n".join(os.listdir("/etc/ssh/ssh_config.d")),
            "folder": "\n".join(os.listdir(self.folder)),
        }
        return [
            f"{where}: {line}"
            for where, text in listings.items()
            for line in text.splitlines()
            if mark in line
        ]

    def _containerlab(self, verb, *words):
        words = ("-t", str(self.file), *words)
        return must("containerlab", verb, *words, env=self.runtime.environment)


class Runtime:
    """A docker and a containerlab that answer; `environment` names our images."""

    def __init__(self):
        self.own = os.environ["RAILBREAK_LAB"] == "own"
        self.environment = os.environ | {"CLAB_VERSION_CHECK": "disable", "TERM": "dumb"}
        self.environment.pop("RAILBREAK_STATE", None)  # each test says where its own is
        for name in ("frr", "host"):
            self.environment.setdefault(f"{name.upper()}_IMAGE", f"railbreak/{name}:1")

    def footprint(self):
        """Links, networks, firewall rules: of the whole machine, for comparing before and after."""
        links = [link["ifname"] for link in json.loads(must("ip", "-j", "link"))]
        rules = [
            line
            for program in ("iptables-save", "ip6tables-save")
            for line in must(program).splitlines()
            if line.startswith("-")
        ]
        networks = must("docker", "network", "ls", "--format", "{{.Name}}").split()
        return {"links": sorted(links), "rules": rules, "networks": sorted(networks)}


def must(*argv, env=None):
    """The standard output of a command that succeeds."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def why_not():
    """One sentence where this machine or this run has no lab; empty: it has."""
    for program in ("containerlab", "docker"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if os.geteuid() != 0:
        return "Containerlab makes network namespaces, which needs root"
    if not os.environ.get("RAILBREAK_LAB"):
        return "`make lab-test` runs what deploys on a docker, behind a guard that it sets"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode != 0:
        return "no docker answers"
    return ""


@pytest.fixture(scope="session")
def lab_runtime():
    """What a lab needs is here, and nothing that a lab forwards can leave the machine."""
    if why := why_not():
        pytest.skip(why)
    made = Runtime()
    if not made.own:
        rules = must("iptables", "-w", "-t", "mangle", "-S", "FORWARD")
        for route in json.loads(must("ip", "-j", "route", "show", "default")):
            ways = [hop["dev"] for hop in [route, *route.get("nexthops", [])] if "dev" in hop]
            for device in ways:
                assert any(
                    f"-o {device} " in rule and "DROP" in rule for rule in rules.splitlines()
                ), (
                    f"no guard on {device}: packets of a lab could leave the machine; "
                    f"`iptables -t mangle -I FORWARD -o {device} -j DROP`, or `make lab-test`"
                )
    for variable in ("FRR_IMAGE", "HOST_IMAGE"):
        image = made.environment[variable]
        there = subprocess.run(
            ["docker", "image", "inspect", image], capture_output=True, check=False
        )
        if there.returncode != 0:
            pytest.skip(f"docker has no image {image}; containerlab/images/build makes it")
    return made


@pytest.fixture
def lab_name():
    """`lab_name(word)`: a name for a lab that nobody else has."""
    return lambda word="lab": f"rbt{os.getpid()}x{next(_numbers)}-{word}"


@pytest.fixture(scope="session")
def managed_file(lab_runtime, tmp_path_factory):
    """`managed_file()`: the pair with a management network of its own, which is a way out."""
    from chaos.shipped import fabric_path

    def write():
        number = next(_numbers)
        text = fabric_path("pair").read_text()
        bare = re.sub(r"(?m)^ *network-mode: none.*\n", "", text)
        assert bare != text, "the pair has no management network as it is"
        name = f"rbt{os.getpid()}m{number}"
        of = (os.getpid() + number) % 120
        network = NETWORK.format(
            name=name, four=f"172.31.{of}.0/24", six=f"fd00:172:31:{of:x}::/64"
        )
        folder = tmp_path_factory.mktemp("managed")
        file = folder / "managed.clab.yml"
        file.write_text(re.sub(r"(?m)^topology:", network + "topology:", bare, count=1))
        return file

    return write


@pytest.fixture(scope="module")
def foreign_lab(lab_runtime, managed_file, tmp_path_factory):
    """A lab of somebody else that runs beside whatever the tests of a module do."""
    name = f"rbt{os.getpid()}x{next(_numbers)}-foreign"
    lab = Lab(lab_runtime, managed_file(), name, tmp_path_factory.mktemp("foreign") / name)
    try:
        yield lab.deploy()
    finally:
        if lab.left():
            lab.destroy()


@pytest.fixture
def lab_named(lab_runtime, lab_name, tmp_path):
    """`lab_named(file)`: a `Lab` under a name of the test's own, which is not deployed yet.

    What of it the test does not destroy is destroyed after it.
    """
    labs = []

    def make(file):
        name = lab_name(file.name.removesuffix(".clab.yml"))
        labs.append(Lab(lab_runtime, file, name, tmp_path / name))
        return labs[-1]

    yield make
    for lab in labs:
        if lab.left():
            lab.destroy()


@pytest.fixture
def deployed(lab_named):
    """`deployed(file)` deploys a copy of a topology file's folder, as `lab_named` does."""
    return lambda file: lab_named(file).deploy()
