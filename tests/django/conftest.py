from pathlib import Path

import pytest

from tests.django.project import Project, start_project


@pytest.fixture
def project(no_leaks: None, tmp_path: Path) -> Project:
    """A new project with the documented settings; nothing is migrated yet."""
    folder = tmp_path / "site"
    folder.mkdir()
    return start_project(folder)
