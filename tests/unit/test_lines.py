"""Lines of a process that never waits: halves are put together, what nobody reads is kept."""

import json
import subprocess
import sys

import pytest

ECHO = """
import select
from chaos.lines import Lines
lines = Lines()
def heard():
    select.select([0], [], [])
    return lines.hear()
while (some := heard()) is not None:
    lines.say(got=some)
    lines.flush()
lines.say(over=True)
lines.flush_all(5)
"""
FULL = """
import sys
from chaos.lines import Lines
lines = Lines()
for n in range(300):
    lines.say(n=n, text="x" * 10_000)
assert lines.flush()
print("kept" if lines.unsaid else "gone", file=sys.stderr, flush=True)
lines.flush_all(10)
assert not lines.unsaid
"""
DEAF = """
import sys
from chaos.lines import Lines
lines = Lines()
lines.say(n=1)
sys.stdin.read()
print(lines.flush(), lines.unsaid, file=sys.stderr, flush=True)
"""


@pytest.fixture
def program():
    """Start a program with pipes; it is over by the end of the test."""
    made = []

    def start(text):
        pipe = subprocess.PIPE
        made.append(
            subprocess.Popen(
                (sys.executable, "-c", text), stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0
            )
        )
        return made[-1]

    yield start
    for one in made:
        one.stdin.close()
        assert one.wait(10) == 0
        one.stdout.close()
        one.stderr.close()


def test_a_line_that_comes_in_halves_is_one(program):
    one = program(ECHO)
    one.stdin.write(b'{"a": 1}\n{"b":')
    assert json.loads(one.stdout.readline()) == {"got": [{"a": 1}]}
    one.stdin.write(b" 2}\n")
    assert json.loads(one.stdout.readline()) == {"got": [{"b": 2}]}
    one.stdin.close()
    assert json.loads(one.stdout.readline()) == {"over": True}


def test_a_reader_who_takes_nothing_stops_nobody_and_loses_nothing(program):
    one = program(FULL)
    assert one.stderr.readline() == b"kept\n"

    said = [json.loads(line)["n"] for line in one.stdout]

    assert said == list(range(300))


def test_a_reader_who_is_gone_is_told_apart(program):
    one = program(DEAF)
    one.stdout.close()
    one.stdin.close()
    assert one.stderr.readline() == b"False False\n"
