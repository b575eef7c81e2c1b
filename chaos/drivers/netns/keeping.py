"""Our side of the keeper: start it as pid 1 of a pid namespace, give it orders, end it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import chaos
from chaos.drivers.state import Life
from chaos.errors import CapabilityError, FabricError
from chaos.netns import CLONE_NEWPID, unshare

_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import runpy; "
    "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
)


class Keeper:
    """The process that holds one fabric, for as long as this object's pipe is open.

    Attributes:
        life: The process, as the machine sees it.
        token: By which it finds the fabric's folder, to remove it when its owner died.
    """

    def __init__(self, root: Path) -> None:
        self.token = secrets.token_hex(8)
        source = str(Path(chaos.__file__).resolve().parents[1])
        program = str(Path(__file__).with_name("keeper.py"))
        argv = [sys.executable, "-IS", "-c", _START, source, program, str(root), self.token]
        started: list[subprocess.Popen[bytes]] = []
        failure: list[OSError] = []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `release`)

        def body() -> None:  # `unshare` moves this thread's children only
            try:
                unshare(CLONE_NEWPID)
                started.append(
                    subprocess.Popen(
                        argv,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=self._errors,
                        cwd="/",
                        start_new_session=True,
                    )
                )
            except OSError as error:
                failure.append(error)

        thread = threading.Thread(target=body, name="keeper")
        thread.start()
        thread.join()
        if failure:
            raise CapabilityError(
                f"a pid namespace is refused here ({failure[0].strerror}); run as root"
            )
        self._process = started[0]
        self.life = Life.of(self._process.pid)

    def order(self, op: str, **words: Any) -> Mapping[str, Any]:
        """Give one order and wait for the answer.

        Raises:
            FabricError: it could not be done; says why.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **words}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the empty answer below tells
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()
            raise FabricError(f"the keeper of the namespaces ended: {said[-1] if said else op}")
        answer: Mapping[str, Any] = json.loads(line)
        if "error" in answer:
            raise FabricError(f"{words.get('name') or words.get('node')}: {answer['error']}")
        return answer

    def release(self) -> None:
        """Close the pipes: a keeper that was told to stay is now nobody's."""
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process.returncode = self._process.returncode or 0  # it may outlive us in peace

    def collect(self) -> None:
        """Take its exit status when it has ended, so that no zombie stays."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.life.pid, os.WNOHANG)
