"""The embedded fabric: namespaces, interposed wires, real FRR; no Docker, no names to clash."""

from chaos.drivers.netns.driver import NetnsDriver
from chaos.drivers.state import Running

__all__ = ["NetnsDriver", "Running"]
