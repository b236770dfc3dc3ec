"""``GET /jobs/<id>/input``: what a job was given, which never changes."""

from flask import Blueprint, Response

from web import access, database
from web.answers import answer, conditional
from web.jobs import FINAL
from web.rows import no_such, parse_id
from web.schemas import JobInput

blueprint = Blueprint("job_inputs", __name__)

READ_INPUT = """
    select input
    from job
    where
        id = %(job_id)s
        and (%(client)s::text is null or client_id = %(client)s)
"""


@blueprint.get("/jobs/<job_id>/input")
def show(job_id: str) -> Response:
    """Show the input of a job that the current request may see."""
    values = {"job_id": parse_id(job_id), "client": access.scope()}
    with database.get().connection() as connection:
        row = connection.execute(READ_INPUT, values).fetchone()
    if row is None:
        raise no_such("job")
    shown = answer(JobInput.model_construct(input=row[0]), headers={"Cache-Control": FINAL})
    return conditional(shown)
