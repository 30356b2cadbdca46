"""/docs works without internet: whatever the page loads comes from the application itself."""

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser

import httpx
import pytest
from fastapi import FastAPI


@pytest.fixture
async def root(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Without the API's prefix."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet.example") as client:
        yield client


class _Loads(HTMLParser):
    """What a browser fetches for a page by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline_scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link":
            self.found.append(values["href"] or "")
        if tag in ("script", "img", "iframe"):
            self.found.append(values.get("src") or "")
            self.inline_scripts += "src" not in values


async def _loads(root: httpx.AsyncClient) -> _Loads:
    loads = _Loads()
    loads.feed((await root.get("/docs")).text)
    return loads


class TestThePage:
    async def test_loads_nothing_from_elsewhere(self, root: httpx.AsyncClient) -> None:
        loads = await _loads(root)
        assert len(loads.found) == 4
        for path in loads.found:
            assert not re.match(r"(?i)[a-z]+:|//", path), path
            asset = await root.get(f"/{path}")
            assert asset.status_code == 200, path
            assert len(asset.content) > 100
            # Of what these could load by themselves: a stylesheet its images and fonts, our script the document.
            if path.endswith((".css", "start.js")):
                assert b"@import" not in asset.content, path
                addresses = re.findall(rb"(?i)url\(\s*['\"]?([^)]{5})", asset.content)
                assert set(addresses) <= {b"data:"}, (path, addresses)

    async def test_forbids_the_browser_to_load_anything_from_elsewhere(self, root: httpx.AsyncClient) -> None:
        page = await root.get("/docs")
        policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert "http" not in page.headers["Content-Security-Policy"]
        assert (await _loads(root)).inline_scripts == 0

    async def test_shows_the_document(self, root: httpx.AsyncClient) -> None:
        assert '"openapi.json"' in (await root.get("/docs/start.js")).text
        document = await root.get("/openapi.json")
        assert document.json()["openapi"].startswith("3.1")
        assert document.headers["content-type"] == "application/json"

    @pytest.mark.parametrize("path", ["/docs/core.py", "/docs/..%2fcore.py", "/docs/%2e%2e/core.py", "/redoc"])
    async def test_shows_no_other_file(self, root: httpx.AsyncClient, path: str) -> None:
        assert (await root.get(path)).status_code == 404
