"""Fixtures that more than one test module uses."""

from __future__ import annotations

import make_sample
import pytest


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """Folder of a whole sample corpus, made once (about 10 s); read only."""
    folder = tmp_path_factory.mktemp("sample")
    make_sample.write_sample(folder)
    return folder
