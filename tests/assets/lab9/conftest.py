from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def lab9_folder() -> Path:
    """The course data beside the checkout; they are not part of the project."""
    folder = Path(__file__).parents[4] / "shared" / "data" / "lab9"
    if not folder.is_dir():
        pytest.skip("the course data are not here")
    return folder
