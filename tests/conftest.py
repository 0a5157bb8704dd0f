"""What all tests share: scripts/ to import from, the project's reference data, and no way out of the sandbox."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("SKELACT_SHARED") or ROOT.parent / "shared")

sys.path.insert(0, str(ROOT / "scripts"))  # drawn_people.py
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that spin starve busy machines


def pytest_configure(config: pytest.Config) -> None:
    """Point what libraries and skelact read from the user's home to an empty folder, and keep them offline."""
    home = tempfile.TemporaryDirectory(prefix="skelact-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(home.cleanup)
    os.environ |= {
        "SKELACT_WEIGHTS": str(Path(home.name) / "weights"),
        "SKELACT_CACHE": str(Path(home.name) / "cache"),
        "YOLO_CONFIG_DIR": str(Path(home.name) / "ultralytics"),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
    }
    for name in ("SKELACT_WEIGHTS_URL", "SKELACT_OFFLINE"):
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SHARED.is_dir():
        return
    reason = f"needs the reference data in {SHARED} (SKELACT_SHARED names another folder)"
    for item in items:
        if item.get_closest_marker("shared"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference data; only for tests marked ``shared``."""
    return SHARED
