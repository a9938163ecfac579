"""One torch thread: a second one spins for the core that the other test process is on, and both slow down tenfold."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Leave the other core alone."""
    torch.set_num_threads(1)
