from __future__ import annotations

import types
from pathlib import Path

import pytest

from .helpers import install


@pytest.fixture
def fakes(
    fake_codec: types.ModuleType, fake_zoo: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> types.ModuleType:
    """The fake codec, with chains; the current folder is `tmp_path`."""
    install(fake_codec, fake_zoo, monkeypatch)
    monkeypatch.chdir(tmp_path)
    return fake_codec
