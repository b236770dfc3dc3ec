"""The web: takes texts, leaves pending jobs in PostgreSQL, and shows what became of them.

It shares nothing with the runner but the schema in ``sql/``.
"""

from flask import Flask, Response, request
from werkzeug.exceptions import NotFound

from web import (
    access,
    batches,
    cancel,
    dashboard,
    docs,
    events,
    health,
    history,
    job_inputs,
    jobs,
    metrics,
    model_jobs,
    overview,
    overview_events,
    pages,
    predict,
    problems,
    retry,
    settings,
)
from web.backlog import Backlog
from web.changes import Changes
from web.cursors import Cursors
from web.database import Database
from web.edge import Edge
from web.history import History
from web.inputs import Inputs
from web.inserts import Inserts
from web.quotas import Quotas
from web.seats import Seats
from web.settings import Settings
from web.viewers import Viewers

MODULES = (
    predict, model_jobs, batches, jobs, job_inputs, events, cancel, retry, pages,
    overview, overview_events, history, metrics, health, dashboard, docs,
)  # fmt: skip


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
    app.extensions["quotas"] = Quotas(database, found.processes)
    app.extensions["inserts"] = Inserts(database)
    app.extensions["inputs"] = Inputs(database)
    app.extensions["cursors"] = Cursors(database)
    app.extensions["history"] = past = History(database)
    # Of the threads some are left for those who do not wait.
    seats = Seats(found.most_waiting)
    app.extensions["changes"] = Changes(found.listen_url or found.database_url, seats)
    app.extensions["viewers"] = Viewers(database, past, seats)
    problems.register(app)
    for module in MODULES:
        app.register_blueprint(module.blueprint)
    app.before_request(refuse_empty_segment)
    if found.require_keys:
        access.register(app, database)
    app.after_request(describe_options)
    app.wsgi_app = Edge(app.wsgi_app)  # type: ignore[method-assign]
    return app


def refuse_empty_segment() -> None:
    """Know no `//jobs`: the router would take it for `/jobs`.

    :raises NotFound: where the path begins so.
    """
    if request.environ.get("PATH_INFO", "").startswith("//"):
        raise NotFound


def describe_options(response: Response) -> Response:
    """Answer OPTIONS by its header Allow, and no body."""
    if request.method == "OPTIONS" and not response.data:
        response.status_code = 204
        del response.headers["Content-Type"]
    return response
