"""JSON lines on standard input and output, for a process that must never wait for either."""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any


class Lines:
    """What is said is kept until the reader takes it; what is heard comes as whole lines."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._in = b""
        os.set_blocking(1, False)

    @property
    def unsaid(self) -> bool:
        """Something is kept that the reader has not taken."""
        return bool(self._out)

    def hear(self) -> list[dict[str, Any]] | None:
        """The whole lines that input holds now; None at its end. Call where it is readable."""
        got = os.read(0, 1 << 20)
        if not got:
            return None
        *lines, self._in = (self._in + got).split(b"\n")
        return [json.loads(line) for line in lines]

    def say(self, **words: Any) -> None:
        """Keep one line for the reader."""
        self._out += json.dumps(words, separators=(",", ":")).encode() + b"\n"

    def flush(self) -> bool:
        """Give the reader what it takes now; False where there is none any more."""
        try:
            del self._out[: os.write(1, self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()
            return False
        return True

    def flush_all(self, within_s: float) -> None:
        """Give the reader everything, as far as it takes it in time."""
        until = time.monotonic() + within_s
        while self._out and time.monotonic() < until:
            if select.select([], [1], [], 0.1)[1]:
                self.flush()
