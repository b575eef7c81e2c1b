"""A store of torch.distributed whose values travel over the ranks' control channels.

Ranks on several machines have no memory in common, and a store of the library's own would need the
fabric, or the management network, open between hosts. Here a rank that sets a key says so, and the
coordinator passes it on to every rank of the group. Only what a rendezvous needs is there.
"""

from __future__ import annotations

import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from torch._C._distributed_c10d import Store


class Shelves:
    """Values as they come, per incarnation of the group; filled by the channel's thread."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._values: dict[int, dict[str, bytes]] = {}

    def take_in(self, command: dict[str, Any]) -> None:
        """One value from the coordinator: `inc`, `key`, `value` in base 64."""
        self.put(command["inc"], command["key"], b64decode(command["value"]))

    def put(self, inc: int, key: str, value: bytes) -> None:
        """Keep a value and wake who waits for it."""
        with self.changed:
            self._values.setdefault(inc, {})[key] = value
            self.changed.notify_all()

    def get(self, inc: int, key: str) -> bytes | None:
        """A value that has come."""
        return self._values.get(inc, {}).get(key)


class ChannelStore(Store):
    """The store of one group.

    Args:
        shelves: Where values come to.
        inc: Incarnation of the group.
        say: Tells the coordinator.
        timeout: How long to wait for a key.
    """

    def __init__(
        self, shelves: Shelves, inc: int, say: Callable[..., None], timeout: timedelta
    ) -> None:
        super().__init__()
        self._shelves, self._inc, self._say, self._patience = shelves, inc, say, timeout

    def set(self, key: str, value: bytes | str) -> None:
        """Put a value here and, by the coordinator, everywhere."""
        data = value.encode() if isinstance(value, str) else bytes(value)
        self._shelves.put(self._inc, key, data)
        self._say("store", key=key, value=b64encode(data).decode())

    def get(self, key: str) -> bytes:
        """A value; waits for it."""
        self.wait([key])
        found = self._shelves.get(self._inc, key)
        assert found is not None
        return found

    def check(self, keys: list[str]) -> bool:
        """Whether all of these have come."""
        return all(self._shelves.get(self._inc, key) is not None for key in keys)

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Return when all of these have come.

        Raises:
            RuntimeError: not in time.
        """
        give_up = time.monotonic() + (timeout or self._patience).total_seconds()
        with self._shelves.changed:
            while not self.check(keys):
                left = give_up - time.monotonic()
                if left <= 0:
                    raise RuntimeError(f"store: {', '.join(keys)} did not come in time")
                self._shelves.changed.wait(left)
