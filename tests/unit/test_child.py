"""Programs of ours as children of ours."""

import asyncio

import pytest

from chaos import child
from chaos.errors import FabricError


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "logs").write_text("a file, where a folder should be")
    log = tmp_path / "logs" / "injector.log"
    with pytest.raises(FabricError, match=rf"^{log} cannot be written: .*; what our programs say"):
        asyncio.run(child.start("chaos.injector", log=log))
