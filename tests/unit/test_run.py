"""What stands before the first trial: a sound fabric, a folder, a job that is not over."""

import asyncio

import pytest

from chaos.driver import Audit
from chaos.errors import BlockedError
from chaos.run import be_sound, make_folder


class Fabric:
    """A fabric that answers its audits in turn, the last one for ever."""

    instance = "lab"

    def __init__(self, *audits):
        self.audits = list(audits)
        self.asked = 0

    async def audit(self):
        self.asked += 1
        findings = self.audits[0] if len(self.audits) == 1 else self.audits.pop(0)
        return Audit(tuple(findings))


def test_a_fabric_that_agrees_with_itself_is_sound():
    fabric = Fabric([])
    asyncio.run(be_sound(fabric))

    assert fabric.asked == 1


def test_a_fabric_that_settles_is_sound():
    asyncio.run(be_sound(Fabric(["leaf1: one leg is missing"], []), looks=2))


def test_a_fabric_at_odds_with_itself_blocks():
    with pytest.raises(BlockedError, match="lab is not sound: leaf1: the kernel has 1 leg of 2"):
        asyncio.run(be_sound(Fabric(["leaf1: the kernel has 1 leg of 2"]), looks=1))


def test_run_folders_never_meet(tmp_path):
    made = {make_folder(tmp_path, "x") for _ in range(4)}

    assert len(made) == 4


def test_a_run_folder_that_cannot_be_made_blocks(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(BlockedError, match="cannot be made: Not a directory"):
        make_folder(tmp_path / "file", "x")
