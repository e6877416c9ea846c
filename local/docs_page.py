"""The API's documentation as a page, on this machine only: `/docs` and `/openapi.json`."""

import functools
import json
from pathlib import Path

from aws_lambda_powertools.event_handler.openapi import swagger_ui
from aws_lambda_powertools.event_handler.openapi.swagger_ui import generate_swagger_html

from local.openapi import DOCUMENT

Page = tuple[int, list[tuple[str, str]], bytes]


@functools.cache
def render_docs_page(path: str) -> Page | None:
    """Return the page at a path, None where there is none."""
    if path == "/openapi.json":
        return 200, [("content-type", "application/json")], DOCUMENT.read_bytes()
    if path != "/docs":
        return None
    assets = Path(swagger_ui.__file__).parent
    specification = json.loads(DOCUMENT.read_bytes())
    specification["servers"] = [{"url": "/"}]
    html = generate_swagger_html(
        spec=json.dumps(specification).replace("</", "<\\/"),
        swagger_js=(assets / "swagger-ui-bundle.min.js").read_text(encoding="utf-8"),
        swagger_css=(assets / "swagger-ui.min.css").read_text(encoding="utf-8"),
        swagger_base_url="",
        oauth2_config=None,
        persist_authorization=False,
    )
    return 200, [("content-type", "text/html; charset=utf-8")], html.encode()
