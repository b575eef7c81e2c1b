"""The driver `containerlab`: labs that the real Containerlab deploys, ours or somebody else's.

render ──▶ guard ──▶ deploy ──▶ boxes, cabling ──▶ reached by namespace, faults as embedded
(pure)     (nft)     (the binary)   (the runtime, the kernel)
"""

from __future__ import annotations

from chaos.drivers.containerlab.driver import ContainerlabDriver

__all__ = ["ContainerlabDriver"]
