"""A shipped experiment on machines: the shipped fabric's own nodes, each with an OpenSSH server.

Every node of clos-2x4x8 is a machine of `conftest`, cabled by plain veth pairs (whose carrier goes
at both ends at once, as a cable's does), its routers with FRR of this machine and the shipped
configuration. The twin file is the shipped topology itself; the experiment is the shipped file.
"""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chaos.shipped import fabric_path
from chaos.topology import load

pytestmark = [
    pytest.mark.ssh,
    pytest.mark.slow,
    pytest.mark.job,
    pytest.mark.skipif(shutil.which("vtysh") is None, reason="no vtysh (apt-get install frr)"),
    pytest.mark.skipif(
        importlib.util.find_spec("torch") is None, reason="collective needs torch: railbreak[job]"
    ),
]
FABRIC = "clos-2x4x8"
#: What the embedded driver adds to every router's configuration, too.
LOGGED = """
log file /run/frr/frr.log debugging
log timestamp precision 6
debug bfd peer
"""
#: BFD's own interval is for routers with processors of their own, not for six on two.
SLOWER = "interval 300"
ROUTER = """
mount -t tmpfs tmpfs /root
mount -t tmpfs tmpfs /etc/frr
cp {folder}/frr-{name}.conf /etc/frr/frr.conf
cp {configs}/daemons {configs}/vtysh.conf /etc/frr/
mkdir -p /var/tmp/frr
mount -t tmpfs -o mode=1777 tmpfs /var/tmp/frr
chown -R frr:frr /etc/frr /run/frr
{sysctls}
for one in zebra bgpd bfdd; do nice -n -15 /usr/lib/frr/$one -d -A 127.0.0.1 2>/dev/null; done
vtysh -b >/dev/null
"""


def build(machines):
    """The fabric's nodes as machines, cabled; its inventory."""
    path = fabric_path(FABRIC)
    fabric = load(FABRIC)
    for name, node in fabric.nodes.items():
        setup = "mount -t tmpfs tmpfs /root"
        if node.runs == "frr":
            setup = router(machines.folder, path.parent / "configs", name, node)
        machines.add(name, setup=setup)
    for link in fabric.links:
        machines.link(*(port.id for port in link.ports))
    for name, node in fabric.nodes.items():
        for line in node.settings.get("exec", ()):
            machines[name].run(*line.split())
    groups = {}
    for name, node in fabric.nodes.items():
        groups.setdefault(node.role, []).append(name)
    site = Path(importlib.util.find_spec("torch").origin).parents[1]
    known = f"-o UserKnownHostsFile={machines.known_hosts}"
    everyone = {
        "ansible_user": "root",
        "ansible_ssh_common_args": known,
        "ansible_ssh_private_key_file": str(machines.key),
        "railbreak": {"torch": str(site)},
    }
    children = {
        group: {"hosts": {name: {"ansible_host": machines[name].address} for name in names}}
        for group, names in groups.items()
    }
    hosts = machines.folder / "hosts.yml"
    hosts.write_text(json.dumps({"all": {"vars": everyone, "children": children}}))
    return path, hosts


def router(folder, configs, name, node):
    """The lines that make a machine the router that the topology file says."""
    text = (configs / name / "frr.conf").read_text().replace("interval 50", SLOWER) + LOGGED
    asn = re.search(r"^router bgp \d+", text, re.M)[0]
    (folder / f"frr-{name}.conf").write_text(f"{text}{asn}\n bgp log-neighbor-changes\nexit\n")
    keys = {key.replace(".", "/"): value for key, value in node.settings["sysctls"].items()}
    sysctls = "\n".join(f"echo {value} >/proc/sys/{key}" for key, value in keys.items())
    return ROUTER.format(folder=folder, configs=configs, name=name, sysctls=sysctls)


def railbreak(machines, *argv):
    """The command line on the controller's side; its exit status and what it said."""
    code = "import sys; from chaos.cli import main; sys.argv[0] = 'railbreak'; main()"
    process = machines.python("-c", code, *argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = process.communicate(timeout=400)
    return process.returncode, said.decode()


def kinds(record):
    """Kinds of events, by who reported them, without what depends on luck alone."""
    found = {(event["source"], event["name"]) for event in record["events"]}
    return {one for one in found if one[1] in CERTAIN}


#: What a cable that is pulled at the far side and put back shows on every fabric.
CERTAIN = {
    *("carrier.lost", "carrier.back", "route.changed", "bgp.lost", "bgp.back", "bfd.lost"),
    *("bfd.back", "flow.gap_started", "flow.restored"),
}


def test_a_shipped_experiment_gives_a_verdict_on_machines(machines, tmp_path, monkeypatch):
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    twin, hosts = build(machines)
    options = ("--trials", "1", "--placebos", "1", "--seed", "1", "--calm-load", "100%")

    code, said = railbreak(
        machines, "attach", str(hosts), "--driver", "ssh", "--links", str(twin), "--name", "real"
    )
    assert code == 0, said
    for attempt in range(3):  # a machine that others use disturbs the calm now and then
        far = tmp_path / f"far{attempt}.json"
        command = ("run", "remote_link_down", "--on", "real", *options, "--json", str(far))
        code, said = railbreak(machines, *command, "--out", str(tmp_path / "runs"))
        assert far.exists(), said
        record = json.loads(far.read_text())
        if record["verdict"] != "inconclusive":
            break
    gone, told = railbreak(machines, "down", "real")
    assert gone == 0, told
    assert machines.left() == []
    near = tmp_path / "near.json"
    railbreak(
        machines, "run", "remote_link_down", *options, "--json", str(near),
        "--out", str(tmp_path / "runs"),
    )  # fmt: skip
    embedded = json.loads(near.read_text())

    assert record["fabric"]["driver"] == "ssh"
    assert record["fabric"]["fidelity"] == "hardware"
    inconclusive = [f["sentence"] for f in record["findings"] if f["verdict"] == "inconclusive"]
    assert inconclusive == []
    assert record["verdict"] in ("pass", "fail")
    assert not [f for f in record["findings"] if f["objective"] == "residue"], record["findings"]
    assert kinds(record) == kinds(embedded)
    assert kinds(record) >= {("kernel_events", "carrier.lost"), ("routing", "bgp.lost")}
    for one in (record, embedded):
        measured = {measure["name"]: measure["value"] for measure in one["measures"]}
        assert measured["job_wrong_values"] == 0
