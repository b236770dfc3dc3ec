"""The web: takes texts, leaves pending jobs in PostgreSQL, and shows what became of them.

It shares nothing with the runner but the schema in ``sql/``.
"""

from flask import Flask, Response, redirect, request
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from web import cancel, docs, health, jobs, pages, predict, problems, settings
from web.backlog import Backlog
from web.database import Database
from web.inserts import Inserts
from web.settings import Settings


def create_app(given: Settings | None = None) -> Flask:
    """Make the app; the settings come from the environment unless they are given.

    :raises SettingsError: when one is missing or wrong.
    """
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False
    found = given or settings.load()
    database = Database(found.database_url)
    app.extensions["settings"] = found
    app.extensions["database"] = database
    app.extensions["backlog"] = Backlog(database, found.max_pending)
    app.extensions["inserts"] = Inserts(database)
    problems.register(app)
    for module in (predict, jobs, cancel, pages, health, docs):
        app.register_blueprint(module.blueprint)
    app.add_url_rule("/", "index", index)
    app.before_request(refuse_empty_segment)
    app.after_request(harden)
    return app


def index() -> AnyResponse:
    """Send a person to the documentation."""
    return redirect("/docs")


def refuse_empty_segment() -> None:
    """Know no `//jobs`: the router would take it for `/jobs`.

    :raises NotFound: where the path begins so.
    """
    if request.environ.get("PATH_INFO", "").startswith("//"):
        raise NotFound


def harden(response: Response) -> Response:
    """Keep browsers and caches from making more of an answer than it is."""
    if request.method == "OPTIONS" and not response.data:
        response.status_code = 204
        del response.headers["Content-Type"]
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response
