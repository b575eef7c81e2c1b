"""Sessions at switches that cannot run here, played by a server on the loopback interface.

It speaks real SSH and behaves as the vendors document their command lines: prompts, echoes,
configuration sessions and candidates, timers that revert, error marks. It proves our side of the
conversation; that a switch answers so is what `tests/data/nos/README.md` gives sources for.
"""

import asyncio
import json
import os
import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from chaos import journal as book
from chaos.change import BgpNeighbour, LinkState, PacketDrop, Place
from chaos.drivers.ssh.console import Console
from chaos.drivers.ssh.switch import SwitchHands, take_back
from chaos.drivers.ssh.target import Target
from chaos.errors import ApplyError, BlockedError, FabricError, SpecError
from chaos.nos import deadman, platform
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration

SECOND = 1_000_000_000
PASSWORD = "right"  # noqa: S105
TABLE = "railbreak_packet_loss_leaf1_x_0000abcd"


# ---- simulated command lines ---------------------------------------------------------------------


class Eos:
    """Arista EOS: `apply` works on a copy, a commit timer brings the old one back."""

    device, port = "eos", "Ethernet1"

    def __init__(self):
        self.config = {"down": set(), "shut": set(), "lists": set(), "bound": set()}
        self.sessions, self.pending, self.mode, self.quirk, self.log = {}, None, "", "", []
        self.counted = 0

    prompt = property(lambda self: f"leaf1{f'(config{self.mode})' if self.mode else ''}#")

    def copy(self):
        return {name: set(value) for name, value in self.config.items()}

    def tick(self):
        if self.pending and time.monotonic() > self.pending[1]:
            self.config, self.pending = self.pending[2], None

    def answer(self, line):
        self.tick()
        self.log.append(line)
        if line in ("terminal width 511", "terminal length 0"):
            return {"w": "Width set to 511 columns.", "l": "Pagination disabled."}[line[9]]
        if line == "show configuration sessions detail | json":
            waits = {self.pending[0]: {"state": "pendingCommitTimer"}} if self.pending else {}
            return json.dumps({"maxSavedSessions": 1, "sessions": waits})
        if found := re.fullmatch(r"show interfaces (\S+) \| json", line):
            status = "disabled" if found[1] in self.config["down"] else "connected"
            counters = {"linkStatusChanges": 1 + 2 * self.counted}
            told = {"interfaceStatus": status, "interfaceCounters": counters}
            return json.dumps({"interfaces": {found[1]: told}})
        if line == "show running-config | section router bgp":
            shut = [f"   neighbor {one} shutdown" for one in sorted(self.config["shut"])]
            known = [f"   neighbor {one} remote-as 65100" for one in ("10.1.1.0", "10.1.1.2")]
            return "\n".join(["router bgp 65001", *known, *shut])
        if found := re.fullmatch(r"show running-config interfaces (\S+)", line):
            return "\n".join([f"interface {found[1]}", *sorted(self.config["bound"])])
        if found := re.fullmatch(r"show ip access-lists (\S+)", line):
            matched = f" [match {self.counted} packets, 0:00:01 ago]" if self.counted else ""
            return f"IP Access List {found[1]}\n        10 deny udp any any eq 4791{matched}"
        if found := re.fullmatch(r"configure session (\S+)(?: (.*))?", line):
            return self.session(found[1], found[2])
        if line == "configure terminal":
            self.mode, self.at, self.now = "-t", "", self.config
            return ""
        if line == "end":
            self.mode = ""
            return ""
        if self.mode:
            return self.configure(line)
        return "% Invalid input"

    def session(self, name, verb):
        if verb is None:
            if self.pending:
                return "% Cannot enter session: pendingCommitTimer"
            self.sessions[name] = self.now = self.copy()
            self.mode, self.at = "-s-rb", ""
            return ""
        if verb == "abort":
            self.sessions.pop(name, None)
            if self.pending and self.pending[0] == name:
                self.config, self.pending = self.pending[2], None
            return ""
        if found := re.fullmatch(r"commit timer (\d\d):(\d\d):(\d\d)", verb):
            if name not in self.sessions:
                return "% Session does not exist"
            h, m, s = map(int, found.groups())
            if self.quirk == "no effect":
                self.sessions.pop(name)
                after = self.config
            else:
                after = self.sessions.pop(name)
            self.pending = (name, time.monotonic() + h * 3600 + m * 60 + s, self.config)
            self.config = after
            return ""
        return "% Invalid input"

    def configure(self, line):
        if self.quirk and line == self.quirk:
            return "% Invalid input (at token 1)"
        no, words = line.startswith("no "), line.removeprefix("no ")
        if words.startswith(("interface ", "router bgp ", "ip access-list", "ipv6 access-list")):
            self.at = words
            if "access-list" in words:
                (self.now["lists"].discard if no else self.now["lists"].add)(words)
        elif words == "shutdown":
            (self.now["down"].discard if no else self.now["down"].add)(self.at.split()[1])
        elif found := re.fullmatch(r"neighbor (\S+) shutdown", words):
            (self.now["shut"].discard if no else self.now["shut"].add)(found[1])
        elif "access-group" in words:
            (self.now["bound"].discard if no else self.now["bound"].add)(f"   {words}")
        elif not re.match(r"(counters|\d+ |exit)", words):
            return "% Invalid input"
        return ""

    def faulty(self):
        self.tick()
        return any(self.config.values())

    def staged(self):
        return bool(self.sessions)


class Srl:
    """Nokia SR Linux: two-line prompt, private candidates, a confirmed commit."""

    device, port = "srlinux", "ethernet-1/1"

    def __init__(self):
        self.config, self.candidate, self.pending = {}, None, None
        self.quirk, self.log, self.counted = "", [], 0

    @property
    def prompt(self):
        mode = "running" if self.candidate is None else "* candidate private rb"
        return f"\n--{{ {mode} }}--[  ]--\nA:leaf1# "

    def tick(self):
        if self.pending and time.monotonic() > self.pending[0]:
            self.config, self.pending = self.pending[1], None

    def answer(self, line):
        self.tick()
        self.log.append(line)
        if line.startswith("environment") or line == "/":
            return ""
        if line.startswith("enter candidate private name "):
            self.candidate = dict(self.config) if self.candidate is None else self.candidate
            return ""
        if line == "discard now":
            self.candidate = None
            return ""
        if line == "/tools system configuration confirmed-reject":
            if not self.pending:
                return "Error: No commit to reject"
            self.config, self.pending = self.pending[1], None
            return "/system/configuration:\n    Commit rejected"
        if found := re.fullmatch(r"commit (now|confirmed timeout (\d+))", line):
            before, self.config = self.config, self.candidate
            if found[2]:
                self.pending = (time.monotonic() + int(found[2]), before)
                return "All changes have been committed. Starting confirmation timer."
            self.candidate = None
            return "All changes have been committed. Leaving candidate mode."
        if found := re.fullmatch(r"(set|delete) / (.*)", line):
            if self.quirk and self.quirk in line:
                return "Error: Invalid value"
            if found[1] == "delete":
                for key in [key for key in self.candidate if key.startswith(found[2])]:
                    del self.candidate[key]
            elif state := re.fullmatch(r"(.*) admin-state (enable|disable)", found[2]):
                self.candidate.pop(f"{state[1]} admin", None)
                if state[2] == "disable":
                    self.candidate[f"{state[1]} admin"] = ""
            else:
                self.candidate[found[2]] = ""
            return ""
        return self.info(line)

    def info(self, line):
        if line == "info from state / system configuration commit *":
            status = "unconfirmed" if self.pending else "complete"
            return f"    system {{\n        commit 7 {{\n            status {status}\n"
        if found := re.fullmatch(r"info from state / (.*) admin-state", line):
            state = "disable" if f"{found[1]} admin" in self.config else "enable"
            return f"    admin-state {state}"
        if line == "info from running / acl":
            return self.acl()
        if "entry 10 statistics" in line:
            return f"    statistics {{\n        matched-packets {self.counted}\n    }}"
        if "carrier-transitions" in line:
            return "    carrier-transitions 3"
        return "Parsing error: Unknown token"

    def acl(self):
        bound = [key.split("input ")[1] for key in self.config if " input acl-filter" in key]
        lists = {" ".join(key.split()[1:5]) for key in self.config if key.startswith("acl acl-f")}
        text = "    acl {\n"
        if bound:
            text += "        interface ethernet-1/1.0 {\n            input {\n"
            text += "".join(f"                {one} {{\n                }}\n" for one in bound)
            text += "            }\n        }\n"
        return text + "".join(f"        {one} {{\n        }}\n" for one in lists) + "    }"

    def faulty(self):
        self.tick()
        return bool(self.config)

    def staged(self):
        return self.candidate is not None


# ---- a Linux shell with a vendor's commands ------------------------------------------------------

SONIC = {
    "config": """
case "$*" in
  "interface shutdown Ethernet0") touch $S/down;;
  "interface startup Ethernet0") rm -f $S/down;;
  "acl add table"*) touch $S/table.$4;;
  "acl remove table"*) [ -e $S/table.$4 ] || { echo "Error: no table"; exit 1; }; rm $S/table.$4;;
  *) echo "Usage: config [OPTIONS] COMMAND"; exit 2;;
esac""",
    "show": """
case "$*" in
  "interfaces status Ethernet0")
    a=up; [ -e $S/down ] && a=down
    echo "  Interface    Lanes    Oper    Admin"; echo "-----------  -------  ------  -------"
    printf '%11s  %7s  %6s  %7s\\n' Ethernet0 0 up $a;;
  "acl table") printf '%-27s  Type\\n' Name; echo "---------------------------  ----"
    cd $S; for t in table.*; do [ -e $t ] && printf '%-27s  L3\\n' ${t#table.}; done; true;;
  "acl rule") printf '%-27s  Rule    Status\\n' Table
    echo "---------------------------  ------  ------"
    cd $S; for t in rule.*; do
      [ -e $t ] && printf '%-27s  RULE_1  Active\\n' ${t#rule.}; done; true;;
esac""",
    "sonic-cfggen": """n=${2#*'"ACL_RULE": {"'}; touch "$S/rule.${n%%|*}" """,
    "sonic-db-cli": """n=${3#*|}; rm -f "$S/rule.${n%%|*}"; echo 1""",
    "aclshow": """n=$(cat $S/../counted 2>/dev/null || echo 17)
echo "RULE NAME    TABLE NAME                   PRIO  PACKETS COUNT"
echo "-----------  ---------------------------  ----  -------------"
for t in $(echo $3 | tr , ' '); do printf 'RULE_1       %-27s  9999  %s\\n' $t $n; done""",
    "sudo": '[ "$1" = -n ] && shift; [ -e $S/../no-sudo ] && exit 1; RBUID=0 exec "$@"',
    "id": "echo ${RBUID:-1000}",
}
NVUE = {
    "nv": """
case "$*" in
  "config diff") cat $S/pending 2>/dev/null; true;;
  "config detach") rm -f $S/pending;;
  "config apply --confirm-no") [ -e $S/old ] || { echo "Error: nothing to confirm"; exit 1; }
    mv $S/old $S/config;;
  "config apply --confirm "*) s=${4%s}; cp $S/config $S/old
    while read l; do echo "$l" >> $S/config; done < $S/pending; rm $S/pending
    (sleep $s; [ -e $S/old ] && mv $S/old $S/config) </dev/null >/dev/null 2>&1 & echo applied;;
  "config apply -y") rm -f $S/pending; echo applied;;
  "config revision -o json") s=applied; [ -e $S/old ] && s=confirm
    echo "{\\"7\\": {\\"state\\": \\"$s\\"}}";;
  "config show -o commands") cat $S/config;;
  "show interface acl-statistics") echo "Interface  ACL Name                Rule ID  In Packets"
    echo "---------  ----------------------  -------  ----------"
    echo "swp1       railbreak_0000abcd_v4   10       17";;
  set*|unset*) echo "nv $*" >> $S/pending;;
  *) echo "Error: Invalid command"; exit 1;;
esac""",
    "ip": """f=BROADCAST,UP; grep -q "swp1 link state down" $S/config && f=BROADCAST
echo "3: swp1: <$f> mtu 9216 state UP" """,
    "sudo": '[ "$1" = -n ] && shift; exec "$@"',
}


class Shell:
    """A real bash whose PATH begins with a vendor's commands; state in files."""

    def __init__(self, device, port, commands, folder):
        self.device, self.port, self.folder = device, port, folder
        (folder / "bin").mkdir()
        self.state = folder / "state"
        self.state.mkdir()
        (self.state / "config").write_text("nv set evpn state enabled\n")
        for name, body in commands.items():
            file = folder / "bin" / name
            file.write_text(f"#!/bin/bash\nS={self.state}\n{body}\n")
            file.chmod(0o755)

    def faulty(self):
        files = {one.name for one in self.state.iterdir()}
        more = (self.state / "config").read_text() != "nv set evpn state enabled\n"
        return more or bool(files - {"config", "pending", "old"})

    def staged(self):
        return (self.state / "pending").exists()


# ---- the server ----------------------------------------------------------------------------------


class Server(asyncssh.SSHServer):
    def __init__(self, connections):
        self.connections = connections

    def connection_made(self, conn):
        self.connections.append(conn)

    def password_auth_supported(self):
        return True

    def validate_password(self, username, password):
        return (username, password) == ("ops", PASSWORD)


class Played:
    """A running server; `target` reaches it."""

    def __init__(self, switch, folder):
        self.switch, self.folder, self.connections, self.children = switch, folder, [], []
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.thread.start()
        assert self.ready.wait(10)
        host = f"[127.0.0.1]:{self.port} {self.key.export_public_key().decode()}"
        (folder / "known_hosts").write_text(host)
        self.target = Target(
            name="leaf1",
            address="127.0.0.1",
            port=self.port,
            user="ops",
            known_hosts=str(folder / "known_hosts"),
            ssh_config="/dev/null",
            platform=switch.device,
            become="sudo" if switch.device == "sonic" else "",
        )

    async def _serve(self):
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncssh.create_server(
            lambda: Server(self.connections),
            "127.0.0.1",
            0,
            server_host_keys=[self.key],
            process_factory=self._bash if isinstance(self.switch, Shell) else self._cli,
            line_editor=False,
        )
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        await self.stop.wait()
        server.close()
        for one in self.connections:
            one.abort()
            await one.wait_closed()
        for child in self.children:
            if child.returncode is None:
                child.kill()
            await child.wait()
            child._transport.close()  # else its pipes are closed by the collector, which warns
        await server.wait_closed()

    async def _cli(self, process):
        try:
            process.stdout.write(self.switch.prompt)
            async for line in process.stdin:
                words = line.strip()
                told = self.switch.answer(words) if words else ""
                told = told.replace("\n", "\r\n") + ("\r\n" if told else "")
                prompt = self.switch.prompt.replace("\n", "\r\n")
                process.stdout.write(f"{words}\r\n{told}{prompt}")
        except (asyncssh.Error, OSError):
            pass
        process.exit(0)

    async def _bash(self, process):
        env = os.environ | {"PATH": f"{self.switch.folder}/bin:{os.environ['PATH']}", "PS1": "$ "}
        child = await asyncio.create_subprocess_exec(
            "bash", "--norc", "-i", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, env=env, start_new_session=True,
        )  # fmt: skip
        self.children.append(child)
        await process.redirect(stdin=child.stdin, stdout=child.stdout)
        await process.wait_closed()

    def close(self):
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(10)


@pytest.fixture(params=["eos", "srlinux", "sonic", "cumulus"])
def device(request):
    return request.param


@pytest.fixture
def played(device, tmp_path, monkeypatch):
    """One switch, played."""
    monkeypatch.setattr(deadman, "FOLDER", str(tmp_path / "leases"))
    if device in ("sonic", "cumulus") and shutil.which("bash") is None:
        pytest.skip("no bash")
    switch = {
        "eos": Eos,
        "srlinux": Srl,
        "sonic": lambda: Shell("sonic", "Ethernet0", SONIC, tmp_path),
        "cumulus": lambda: Shell("cumulus", "swp1", NVUE, tmp_path),
    }[device]()
    made = Played(switch, tmp_path)
    yield made
    made.close()


async def armed(played, *changes, life="60 s", **words):
    words = {"passwords": {"leaf1": PASSWORD}, "connect_s": 5, "answer_s": 10} | words
    return await SwitchHands.arm(
        changes,
        {"leaf1": played.target},
        journal=played.folder / "journal.jsonl",
        max_life=Duration.parse(life),
        **words,
    )


def port_and_flow(played):
    at = Place("leaf1", played.switch.port)
    return LinkState(at), PacketDrop(at, TABLE, "ip saddr 10.0.0.9 udp dport 4791")


async def until(condition, within_s=20.0):
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < within_s, "it never came to be"
        await asyncio.sleep(0.02)


def test_a_port_and_a_flow_are_held_twice_and_let_go(played):
    """Both changes in force at once, in two spans; proved, counted, journalled, nothing left."""
    changes = port_and_flow(played)

    async def scenario():
        hands = await armed(played, *changes)
        async with hands:
            assert not played.switch.faulty()
            spans = [InForce(0, 2 * SECOND), InForce(5 * SECOND, 7 * SECOND)]
            await hands.start(now_ns() + SECOND // 2, spans)
            await until(played.switch.faulty)
            played.switch.counted = 17
            await hands.wait()
            return await hands.heal()

    proof = asyncio.run(scenario())
    assert proof.in_force, proof
    assert proof.taken_back, proof
    assert [one.kind for one in proof.actions[::2]] == ["do", "undo", "do", "undo"]
    assert proof.changes[1].hit == 17
    assert proof.trouble == ()
    assert not played.switch.faulty()
    states = [one.history for one in book.read(played.folder / "journal.jsonl")]
    assert states == [("intended", "in_force", "acted", "taken_back")] * 2
    assert PASSWORD not in (played.folder / "journal.jsonl").read_text()


@pytest.mark.parametrize("device", ["eos", "srlinux"], indirect=True)
def test_the_timer_of_the_commit_is_the_dead_man(played):
    """No more sessions, no more controller: the switch reverts by itself."""
    changes = port_and_flow(played)

    async def scenario():
        hands = await armed(played, *changes, life="6 s")
        await hands.start(now_ns(), [InForce(0, 6 * SECOND)])
        await until(lambda: len(hands.actions) == 2)
        for task in hands._runs:  # the controller stands still from here on
            task.cancel()
        assert played.switch.faulty()
        await until(lambda: not played.switch.faulty(), 10)
        return await hands.heal()

    proof = asyncio.run(scenario())
    assert proof.taken_back
    assert not played.switch.faulty()


@pytest.mark.parametrize("device", ["eos", "srlinux", "cumulus"], indirect=True)
def test_a_crash_is_taken_back_from_the_journal(played):
    """The same switch, another process; a second time finds nothing to do."""
    changes = port_and_flow(played)

    def connect(host):
        assert host == "leaf1"
        console = Console(played.target, platform(played.switch.device), password=PASSWORD)
        console.open()
        return console

    async def scenario():
        hands = await armed(played, *changes)
        await hands.start(now_ns(), [InForce(0, 60 * SECOND)])
        await until(lambda: len(hands.actions) == 2)
        await asyncio.sleep(1)
        for task in hands._runs:
            task.cancel()
        for switch in hands._switches:
            switch.console.close()

    asyncio.run(scenario())
    assert played.switch.faulty()
    entries = book.open_changes(played.folder / "journal.jsonl")
    assert len(entries) == 2
    assert [take_back(one, connect).outcome for one in reversed(entries)] == ["taken_back"] * 2
    assert not played.switch.faulty()
    assert [take_back(one, connect).outcome for one in reversed(entries)] == ["taken_back"] * 2


@pytest.mark.parametrize("device", ["sonic"], indirect=True)
def test_what_acts_in_the_last_moment_is_counted(played, monkeypatch):
    """A shell counts in the same breath as it undoes."""
    monkeypatch.setattr("chaos.drivers.ssh.switch.COUNT_NS", 4 * SECOND)

    async def scenario():
        async with await armed(played, port_and_flow(played)[1]) as hands:
            await hands.start(now_ns(), [InForce(0, 6 * SECOND)])
            await until(lambda: hands._held()[0].hits.hit == 17)
            (played.folder / "counted").write_text("23")
            await hands.wait()
            return await hands.heal()

    assert asyncio.run(scenario()).changes[0].hit == 23


@pytest.mark.parametrize("device", ["eos", "srlinux", "cumulus"], indirect=True)
def test_what_was_staged_and_never_done_is_thrown_away(played):
    """Else the next commit of whoever comes would carry it."""

    async def scenario():
        async with await armed(played, *port_and_flow(played)):
            assert played.switch.staged()

    asyncio.run(scenario())
    assert not played.switch.staged()
    assert not played.switch.faulty()


@pytest.mark.parametrize("device", ["eos", "srlinux"], indirect=True)
def test_a_line_that_the_switch_rejects_breaks_nothing(played):
    """Told with its words, before anything was in force."""
    change = port_and_flow(played)[0]
    played.switch.quirk = "shutdown" if played.switch.device == "eos" else "admin-state disable"

    with pytest.raises(FabricError, match=r"leaf1 .* rejected .*(Invalid)") as caught:
        asyncio.run(armed(played, change))
    assert "\n" not in str(caught.value)
    assert not played.switch.staged()
    assert not played.switch.faulty()
    assert book.open_changes(played.folder / "journal.jsonl") == ()


@pytest.mark.parametrize("device", ["eos"], indirect=True)
def test_accepted_yet_not_in_force_is_healed_and_told(played, monkeypatch):
    """The switch says yes and does nothing."""
    monkeypatch.setattr("chaos.drivers.ssh.held.TAKES_HOLD_S", 1.0)
    played.switch.quirk = "no effect"

    async def scenario():
        hands = await armed(played, port_and_flow(played)[0])
        async with hands:
            await hands.start(now_ns(), [InForce(0, 9 * SECOND)])
            with pytest.raises(ApplyError, match="accepted, yet not in force; everything was"):
                await hands.wait()
            return await hands.heal()

    proof = asyncio.run(scenario())
    assert not proof.in_force
    assert proof.taken_back
    assert played.switch.pending is None


@pytest.mark.parametrize("device", ["eos"], indirect=True)
def test_anothers_commit_that_waits_blocks_ours(played):
    """Its revert would take ours with it."""
    played.switch.pending = ("somebody", time.monotonic() + 600, played.switch.copy())
    with pytest.raises(BlockedError, match="a commit waits for its confirmation at leaf1"):
        asyncio.run(armed(played, port_and_flow(played)[0]))


@pytest.mark.parametrize("device", ["sonic"], indirect=True)
def test_the_dead_man_of_a_linux_switch_needs_root(played):
    """Not root, and no sudo asked for or allowed: blocked, nothing is left."""
    change = port_and_flow(played)[0]
    (played.folder / "no-sudo").touch()
    with pytest.raises(FabricError, match="ops may not sudo without a password"):
        asyncio.run(armed(played, change))
    played.target = replace(played.target, become="")
    with pytest.raises(BlockedError, match="the dead-man needs root there"):
        asyncio.run(armed(played, change))
    assert not (played.folder / "leases").exists()


@pytest.mark.parametrize("device", ["eos"], indirect=True)
def test_a_neighbour_on_eos(played):
    """Its AS number is read from the switch."""

    async def scenario():
        hands = await armed(played, BgpNeighbour(Place("leaf1"), "10.1.1.0"))
        async with hands:
            await hands.start(now_ns(), [InForce(0, 2 * SECOND)])
            await until(lambda: played.switch.config["shut"] == {"10.1.1.0"})
            await hands.wait()
            return await hands.heal()

    assert asyncio.run(scenario()).taken_back
    assert "router bgp 65001" in played.switch.log
    assert played.switch.config["shut"] == set()


@pytest.mark.parametrize("device", ["eos"], indirect=True)
def test_misuse_is_blocked_with_one_sentence(played):
    """Wrong password, another platform's prompt, too short a life, the same change twice."""
    change = port_and_flow(played)[0]
    with pytest.raises(FabricError, match="refused the login of ops") as caught:
        asyncio.run(armed(played, change, passwords={"leaf1": "wrong"}))
    assert "\n" not in str(caught.value)
    assert "wrong" not in str(caught.value)
    with pytest.raises(BlockedError, match="5 s at least"):
        asyncio.run(armed(played, change, life="2 s"))
    with pytest.raises(SpecError, match="is there twice"):
        asyncio.run(armed(played, change, change))
    with pytest.raises(FabricError, match="no switch leaf1"):
        asyncio.run(SwitchHands.arm([change], {}, journal=Path("x"), max_life=Duration(9 * SECOND)))
    played.target = replace(played.target, platform="frr")
    with pytest.raises(FabricError, match="leaf1"):
        asyncio.run(armed(played, LinkState(Place("leaf1", "eth0")), answer_s=2))
    assert not played.switch.faulty()
