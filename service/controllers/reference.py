"""The document and its rendered reference. Everything comes from this server: the page works without internet."""

from functools import cache
from importlib.resources import files
from typing import Final

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from service.errors import NotFound

router = APIRouter(include_in_schema=False)

# The package carries Swagger UI's own files; of its Python nothing is used.
_ASSETS_PACKAGE: Final = "fastapi_offline"
_ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon.png": "image/png",
}
_START: Final = "start.js"
# Not inline, so that the page may forbid inline scripts. The validator would be a service of somebody else's.
_START_SCRIPT: Final = b"""\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  docExpansion: "none",
  filter: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
_PAGE: Final = b"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Wallet service: API reference</title>
<link rel="icon" type="image/png" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="reference"></div>
<noscript>A script draws the reference; the document itself is <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# Swagger UI sets style attributes, and its stylesheet has its icons as data.
_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# They change with a release; a day is soon enough.
_CACHED: Final = {"Cache-Control": "public, max-age=86400"}


@router.get("/openapi.json")
async def get_document(request: Request) -> Response:
    state = request.app.state
    if not hasattr(state, "openapi_body"):
        # Putting it together takes some tenths of a second once, during which others want to be served.
        state.openapi_body = orjson.dumps(await run_in_threadpool(request.app.openapi))
    return Response(state.openapi_body, media_type="application/json")


@router.get("/docs")
async def get_reference() -> Response:
    headers = {"Content-Security-Policy": _CONTENT_SECURITY_POLICY}
    return Response(_PAGE, media_type="text/html; charset=utf-8", headers=headers)


@router.get("/docs/{name}")
async def get_asset(name: str) -> Response:
    if name == _START:
        return Response(_START_SCRIPT, media_type="text/javascript; charset=utf-8", headers=_CACHED)
    if name not in _ASSETS:
        raise NotFound
    return Response(_asset(name), media_type=_ASSETS[name], headers=_CACHED)


@cache
def _asset(name: str) -> bytes:
    return files(_ASSETS_PACKAGE).joinpath("static", name).read_bytes()
