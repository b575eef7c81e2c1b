"""Lanes of `.ci` that work side by side: who does what, who said what, and one kernel for all."""

import importlib.util
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parents[2] / ".ci"


def room(name, suffix=".py"):
    """A program or module of `.ci`, which is no package."""
    loader = SourceFileLoader(f"lanes_{name}", str(CI / f"{name}{suffix}"))
    made = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(made)
    return made


@pytest.fixture
def program(monkeypatch):
    """`program(name)`: a program of `.ci`, loaded."""
    monkeypatch.syspath_prepend(CI)
    return lambda name: room(name, "")


side = room("side")


# ---- sharing out ---------------------------------------------------------------------------------


def test_each_file_is_given_out_once_and_the_sums_are_near_each_other():
    seconds = {"a": 20, "b": 300, "c": 120, "d": 30, "e": 110, "f": 60}
    lists = side.shared_out(seconds, 2)

    assert sorted(name for names in lists for name in names) == sorted(seconds)
    assert {sum(seconds[name] for name in names) for names in lists} == {320}
    assert all(names == sorted(names) for names in lists), "in the order in which they came"


@pytest.mark.parametrize(("many", "lists"), [(1, [["a", "b"]]), (2, [["a"], ["b"]])])
def test_nobody_is_given_nothing(many, lists):
    assert side.shared_out({"a": 1, "b": 1}, many) == lists
    assert side.shared_out({"a": 1, "b": 1}, 5) == [["a"], ["b"]]


def test_the_files_that_are_given_out_are_those_with_marked_tests(program):
    """They are chosen by what they say; what pytest itself finds is the same."""
    argv = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-qq")
    done = subprocess.run(
        (*argv, "-m", "vm", "tests", "suites"),
        cwd=CI.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.partition("\n====")[0].splitlines()  # a summary of skips may follow
    found = {line.partition("::")[0].partition(": ")[0] for line in lines}
    assert program("vm").chosen() == sorted(found - {""})


def test_every_file_with_a_time_is_one_that_is_given_out(program):
    """A renamed file would count as any other, and nobody would see it."""
    vm, lab = program("vm"), program("lab")
    assert set(vm.SECONDS) <= set(vm.chosen())
    assert set(lab.SECONDS) <= {path.name for path in (CI.parent / "tests" / "lab").iterdir()}


# ---- side by side --------------------------------------------------------------------------------


def together(*scripts, signals=()):
    """What each said, in the order in which it was told, and the exit statuses."""
    told = []
    commands = {str(n): ("sh", "-c", script) for n, script in enumerate(scripts, 1)}
    statuses = side.side_by_side(commands, lambda *words: told.append(words), signals)
    return told, statuses


def test_lines_are_whole_and_bear_who_said_them():
    one = "printf 'half '; sleep 0.4; echo whole; echo bad >&2; printf last"
    two = "sleep 0.2; echo between; exit 3"
    told, statuses = together(one, two)

    assert statuses == {"1": 0, "2": 3}
    assert told == [("2", "between"), ("1", "half whole"), ("1", "bad"), ("1", "last")]


def test_they_work_at_the_same_time(tmp_path):
    """Each waits for the other."""
    met = "touch {0}/{1}; until [ -e {0}/{2} ]; do sleep 0.05; done"
    scripts = (met.format(tmp_path, 1, 2), met.format(tmp_path, 2, 1))
    assert together(*scripts)[1] == {"1": 0, "2": 0}


def test_a_process_that_outlives_its_command_is_not_waited_for():
    began = time.monotonic()
    told, statuses = together("sleep 30 & echo $!")
    os.kill(int(told[0][1]), signal.SIGKILL)
    assert statuses == {"1": 0}
    assert time.monotonic() - began < 15


def test_the_worst_status_counts():
    assert side.worst([]) == 0
    assert side.worst([0, 1]) == 1
    assert side.worst([1, 143, 0]) == 143
    assert side.worst([0, -9]) == 137


PARENT = """
import signal, sys
sys.path.insert(0, sys.argv[1])
import side
seen = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: seen.append(number))
commands = {name: ("sh", "-c", "echo $$; exec sleep 60") for name in "12"}
told = lambda name, line: print(line, flush=True)
sys.exit(side.worst(side.side_by_side(commands, told, seen).values()))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_who_ends_the_caller_ends_all(number):
    argv = (sys.executable, "-c", PARENT, str(CI))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(parent.stdout.readline()) for _ in "12"]
        parent.send_signal(number)
        assert parent.wait(10) == (-9 if number == signal.SIGKILL else 143)
    until = time.monotonic() + 10
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < until, "they still run"
        time.sleep(0.05)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---- what failed, once more ----------------------------------------------------------------------

TRIED = """
import os
from pathlib import Path
from pytest import mark

pytestmark = [mark.vm, mark.filterwarnings("error")]

def tried(name):
    with Path("log").open("a") as log:
        log.write(name + " ")
    return Path("log").read_text().split().count(name)

def test_good(record_property):
    record_property("known", "yes")
    tried("good")

@mark.parametrize("word", ["a b  c"])
def test_(word):
    {body}

def test_last():
    {last}
"""
FLAKY, BROKEN = "assert tried('other') > 1", "assert tried('other') > 5"
DIES = "os._exit(1)  # as when a machine dies: nobody knows what failed"
STOPS = "raise KeyboardInterrupt  # not all were tried"


@pytest.mark.parametrize(
    ("body", "last", "status", "tries"),
    [
        (FLAKY, "pass", 0, 2),
        (BROKEN, "pass", 1, 2),
        (FLAKY, DIES, 1, 1),
        (FLAKY, STOPS, 2, 1),
    ],
)
def test_what_failed_is_tried_once_more_and_nothing_else_is_forgiven(
    program, tmp_path, monkeypatch, capfd, body, last, status, tries
):
    """The machines' own commands, run here."""
    vm = program("vm")
    (tmp_path / "test_one.py").write_text(TRIED.format(body=body, last=last))
    (tmp_path / "test_two.py").write_text(TRIED.format(body="tried('second')", last="pass"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setattr(vm, "chosen", lambda: ["test_one.py", "test_two.py"])
    whole = vm.one_machine

    def here(options, name, tests):
        *_, script = whole(options, name, tests)
        script = script.replace("/tmp/cache", str(tmp_path / name)).replace("/out/", f"{name}-")
        return ["sh", "-c", script]

    monkeypatch.setattr(vm, "one_machine", here)
    options, words = vm.read_words(["--machines", "2", "--out", "out"])

    assert words == []
    assert vm.marked(options, []) == status
    said = capfd.readouterr().out
    log = (tmp_path / "log").read_text().split()
    assert [log.count(name) for name in ("good", "second", "other")] == [2, 1, tries]
    assert ("vm: once more, what failed:" in said) is (tries == 2)
    assert vm.FAILED not in said
    assert 'name="known"' in (tmp_path / "2-junit.xml").read_text()
    assert re.search(r"(?m)^1\| .*test_one", said)
    assert re.search(r"(?m)^2\| .*test_two", said)


# ---- one kernel for all --------------------------------------------------------------------------

#: A package is got by a stand-in for apt, which takes its time and notes that it was asked.
APT = """#!/bin/sh
echo asked >>"{folder}/log"
sleep 1
cp "{folder}/linux.deb" linux-image-6.12.9-amd64_1_amd64.deb
"""
MAKE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import kernel
kernel.CACHE = Path(sys.argv[2])
for path in kernel.made(lambda text: print(text, flush=True)):
    print(path.name, len(path.read_bytes()), flush=True)
"""


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """A folder whose `linux.deb` the stand-in gives out; `log` has a line for each time."""
    for program in ("dpkg-deb", "zstd", "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "boot").mkdir()
    head = "Package: linux\nVersion: 1\nArchitecture: amd64\nMaintainer: a <a@b>\nDescription: d\n"
    (tree / "DEBIAN" / "control").write_text(head)
    packed = subprocess.run(["zstd", "-cq"], input=b"kernel" * 9, capture_output=True, check=True)
    payload = packed.stdout + struct.pack("<I", 54)
    image = bytearray(1024)
    struct.pack_into("<II", image, 0x248, 512, len(payload))
    (tree / "boot" / "vmlinuz-6.12.9-amd64").write_bytes(bytes(image) + payload)
    (tree / "boot" / "rdma_rxe.ko").write_bytes(b"\0depends=\0")
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", tree, tmp_path / "linux.deb"],
        check=True, capture_output=True,
    )  # fmt: skip
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "apt-get").write_text(APT.format(folder=tmp_path))
    (programs / "apt-cache").write_text("#!/bin/sh\necho linux-image-6.12.9-amd64 - a kernel\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tmp_path


def making(cache):
    argv = (sys.executable, "-c", MAKE, str(CI), str(cache))
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_that_want_the_kernel_at_once_get_it_once(apt):
    cache = apt / "cache"
    (cache / "download-1").mkdir(parents=True)  # of one that was killed
    (cache / "old.part17").write_text("half")
    both = [making(cache), making(cache)]
    said = [process.communicate(timeout=60)[0].splitlines() for process in both]

    assert [process.returncode for process in both] == [0, 0], said
    assert (apt / "log").read_text() == "asked\n"
    assert said[0][-2:] == said[1][-2:]
    assert said[0][-2].endswith(".vmlinux 54")
    waited = ["waits for another process that makes the kernel" in lines for lines in said]
    assert sorted(waited) == [False, True]
    assert {path.suffix for path in cache.iterdir()} == {".deb", ".vmlinux", ".cpio", ""}


def test_what_a_killed_one_held_is_free(apt):
    cache = apt / "cache"
    first = making(cache)
    assert "downloads" in first.stdout.readline()
    first.kill()
    first.communicate()
    second = making(cache)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert ".vmlinux 54" in said
