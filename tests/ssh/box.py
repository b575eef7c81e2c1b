"""One machine with a real OpenSSH server: what its init does, and a look at it without SSH."""

import os
import shutil
import subprocess
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")

CONFIG = """
{more}
Port 22
HostKey {folder}/host_{name}
AuthorizedKeysFile {folder}/authorized
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100:30:200
UseDNS no
"""
ROOT = Path(__file__).resolve().parents[2]
#: The checkout stays visible where a file system of the machine's own would hide it.
INIT = """
mkdir -p {folder}/checkout && mount --bind {root} {folder}/checkout || exit 1
show() {{
  [ -e {root}/pyproject.toml ] && return
  mkdir -p {root} && mount --bind {folder}/checkout {root}
}}
mount -t tmpfs -o mode=755{run_size} tmpfs /run || exit 1
mount -t tmpfs -o mode=1777{tmp_size} tmpfs /tmp || exit 1
mount -t sysfs sysfs /sys 2>/dev/null
[ -e ~/.bashrc ] && mount --bind /dev/null ~/.bashrc  # bash reads it for commands over SSH
mkdir -p /run/sshd /run/frr
hostname {name}
show
{setup}
show
{sshd} -D -E {folder}/log_{name} -f {folder}/config_{name} &
while :; do sleep 3600 & wait $!; done
"""
#: Lines for a machine's `setup` that make a user `ops`, who may sudo without a password; `{key}` is
#: the public key that lets them in. `OPS_SSHD` goes with it, as `more`.
OPS = """
for one in passwd shadow group; do cp -p /etc/$one /run/$one; mount --bind /run/$one /etc/$one; done
echo 'ops:x:4242:4242::/run/ops:/bin/sh' >>/etc/passwd
echo 'ops:*:19000:0:99999:7:::' >>/etc/shadow
echo 'ops:x:4242:' >>/etc/group
mkdir -p /run/ops && cp {key} /run/ops/authorized && chown -R 4242:4242 /run/ops
mount -t tmpfs -o mode=755 tmpfs /etc/sudoers.d
echo 'ops ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops && chmod 440 /etc/sudoers.d/ops
"""
OPS_SSHD = "AuthorizedKeysFile /run/ops/authorized"


class Box:
    """One machine: `name`, `address`, `netns`, and `run` to look at it without SSH."""

    def __init__(self, name, address, netns, process):
        self.name, self.address, self.netns, self.process = name, address, netns, process

    @property
    def pid(self):
        """Process id of its init, outside."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            return int(file.read().split()[0])

    def run(self, *argv, check=True):
        """A command in the machine, by its namespaces; its output."""
        enter = ("nsenter", "-t", str(self.pid), "-n", "-m", "-p", "-u")
        done = subprocess.run((*enter, *argv), capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{self.name}: {argv}: {done.stderr}"
        return done.stdout

    def pids(self, word):
        """Process ids there of programs of ours that have a word in their command line."""
        told = self.run("ps", "-ww", "-eo", "pid=,args=").splitlines()
        return [line.split()[0] for line in told if word in line and "sshd" not in line]

    def rtt_ms(self, address, *options):
        """The median of seven echoes."""
        argv = ("ping", "-q", "-i", "0.02", "-c", "7", "-W", "1", *options, address)
        return float(self.run(*argv).rpartition(" = ")[2].split("/")[1])

    def left(self):
        """What of ours is on it: files, processes, tables; sentences."""
        found = []
        for folder in ("/run/railbreak", "/tmp/railbreak-0"):
            listed = self.run("sh", "-c", f"find {folder} 2>/dev/null", check=False).split()
            found += [f"{self.name}: file {one}" for one in listed]
        told = self.run("ps", "-ww", "-eo", "args=")
        found += [
            f"{self.name}: process {line}"
            for line in told.splitlines()
            if "railbreak" in line and "sshd" not in line and "-eo args=" not in line
        ]
        tables = self.run("nft", "list", "tables")
        found += [f"{self.name}: {line}" for line in tables.splitlines() if "railbreak" in line]
        return found
