"""``GET /docs``: Swagger UI, served from here; its page asks no other host for anything."""

from pathlib import Path

import flask_swagger_ui
from flask import Blueprint, Response, send_from_directory

from web.answers import answer
from web.errors import DatabaseUnavailable, SchemaMissing
from web.openapi import Schemas, document
from web.overview import read

blueprint = Blueprint("docs", __name__)

SWAGGER_UI = Path(flask_swagger_ui.__file__).parent / "dist"

# Swagger UI writes style attributes and draws its icons from data: addresses.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>jobrunner API</title>
  <link rel="stylesheet" href="/docs/swagger-ui.css">
  <link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
  <div id="swagger-ui"></div>
  <noscript>The API is described in <a href="/openapi.json">openapi.json</a>.</noscript>
  <script src="/docs/swagger-ui-bundle.js"></script>
  <script src="/docs/start.js"></script>
</body>
</html>
"""

# validatorUrl: by default the page sends its address to validator.swagger.io.
START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""


READ_SCHEMAS = """
    select
        model,
        input_schema,
        output_schema
    from serving_version
    where
        input_schema is not null
        or output_schema is not null
"""


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """Describe the API (OpenAPI 3.1), with what models take and give, as far as that is known."""
    try:
        served = {
            row["model"]: Schemas(row["input_schema"], row["output_schema"])
            for row in read(READ_SCHEMAS)
        }
    except (DatabaseUnavailable, SchemaMissing):
        served = {}
    return answer(document(served), headers={"Cache-Control": "no-cache"})


@blueprint.get("/docs", strict_slashes=False)
def page() -> Response:
    """Show the description to a person."""
    return Response(PAGE, mimetype="text/html", headers={"Content-Security-Policy": POLICY})


@blueprint.get("/docs/start.js")
def start() -> Response:
    """Start Swagger UI: from a file, since the policy forbids scripts in the page."""
    return Response(START, mimetype="text/javascript")


@blueprint.get("/docs/<path:name>")
def asset(name: str) -> Response:
    """Serve a file of Swagger UI."""
    return send_from_directory(SWAGGER_UI, name)
