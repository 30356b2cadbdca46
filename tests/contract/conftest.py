"""The OpenAPI document, from an application that no server stands behind."""

from typing import Any

import pytest

from service.main import create_app
from service.settings import Settings


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    return create_app(Settings(_env_file=None)).openapi()
