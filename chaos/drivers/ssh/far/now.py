"""Prints the time, as every shipped program tells it: `now_ns` on the controller's clock."""

from __future__ import annotations

import sys

from chaos.timeline import now_ns

if __name__ == "__main__":
    sys.stdout.write(str(now_ns()))
