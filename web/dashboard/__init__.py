"""``GET /``: the dashboard, one page that asks this API for all that it shows, and no other host.

Its files have addresses with a hash of all of them, and so may be kept for ever. The page
itself says nothing that needs a key: whether one is needed, it tells the scripts.
"""

import gzip
import hashlib
from functools import cache
from importlib import resources
from pathlib import PurePath
from typing import NamedTuple

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from web import settings
from web.answers import conditional
from web.dashboard.joining import join

blueprint = Blueprint("dashboard", __name__)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE = "index.html"
# The script that needs the others, and what all together are called.
FIRST, SCRIPT = "main", "dashboard.js"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
KEEP = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
# Where the page has what is known here only.
FOLDER, KEYS = "{{ folder }}", "{{ keys }}"


class Files(NamedTuple):
    """The files that the page loads, as they are and packed, and the hash of all."""

    version: str
    contents: dict[str, bytes]
    packed: dict[str, bytes]


@blueprint.get("/")
def page() -> Response:
    """Show the page."""
    response = Response(written(settings.get().require_keys), mimetype="text/html")
    response.headers["Cache-Control"] = ASK_AGAIN
    response.headers["Content-Security-Policy"] = POLICY
    return conditional(response)


@blueprint.get("/dashboard/<version>/<name>")
def asset(version: str, name: str) -> Response:
    """Serve a file of the page.

    :raises NotFound: when there is none of that name.
    """
    found = files()
    if name not in found.contents:
        raise NotFound
    packs = request.accept_encodings["gzip"] > 0
    body = (found.packed if packs else found.contents)[name]
    response = Response(body, mimetype=TYPES[PurePath(name).suffix])
    response.vary.add("Accept-Encoding")
    if packs:
        response.headers["Content-Encoding"] = "gzip"
    # A page of another version, while one is rolled out, has to ask again.
    response.headers["Cache-Control"] = KEEP if version == found.version else ASK_AGAIN
    return conditional(response)


@cache
def written(require_keys: bool) -> str:
    """Write the page."""
    text = (resources.files(__name__) / "static" / PAGE).read_text("utf-8")
    folder = f"/dashboard/{files().version}"
    return text.replace(FOLDER, folder).replace(KEYS, "on" if require_keys else "off")


@cache
def files() -> Files:
    """Read the files, once a process; the scripts are one."""
    found = {
        file.name: file.read_bytes()
        for file in (resources.files(__name__) / "static").iterdir()
        if PurePath(file.name).suffix in TYPES
    }
    scripts = {PurePath(name).stem: found.pop(name) for name in list(found) if name.endswith(".js")}
    joined = join({name: script.decode() for name, script in scripts.items()}, FIRST)
    contents = found | {SCRIPT: joined.encode()}
    whole = hashlib.sha256()
    for name in sorted(contents):
        whole.update(name.encode() + b"\0" + contents[name] + b"\0")
    packed = {name: gzip.compress(content, mtime=0) for name, content in contents.items()}
    return Files(whole.hexdigest()[:16], contents, packed)
