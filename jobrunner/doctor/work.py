"""Whether the work goes on: runners, what waits for them, and what they hold."""

from collections.abc import Iterator

from jobrunner import heartbeat, jobs
from jobrunner.doctor.finding import Finding, Patient, duration, ok, problem, warning

# A pending job that a free worker has not taken for so long is not just unlucky.
LATE_SECONDS = 3600
# Beyond its timeout a call is ended; before it a job may wait for its turn with the worker.
OVERDUE_SECONDS = 60
DEFAULT_TIMEOUT_SECONDS = 60

# Of all that are due, also where no such model was ever registered.
READ_DUE = """
    select
        job.model,
        count(*) as jobs,
        extract(epoch from now() - min(job.run_at))::float8 as age
    from job
    where
        job.finished_at is null
        and job.status = 'pending'
        and job.run_at <= now()
    group by job.model
    order by job.model
"""
READ_MISSING = "select runner from missing_runner"
READ_OVERDUE = """
    select
        job.model,
        job.claimed_by,
        count(*) as jobs,
        extract(epoch from max(now() - job.started_at))::float8 as running_for
    from job
    left join (
        select
            model,
            max(timeout_seconds) as seconds
        from model_version
        group by model
    ) as timeout on job.model = timeout.model
    where
        job.finished_at is null
        and job.status = 'processing'
        and job.started_at < now() - make_interval(
            secs => 2 * coalesce(timeout.seconds, %(default)s) + %(more)s
        )
    group by job.model, job.claimed_by
    order by job.model, job.claimed_by
"""


def runners(patient: Patient) -> Iterator[Finding]:
    """Look who is at work, who has vanished, and what they complain of."""
    found = heartbeat.overview(patient.connection)
    missing = _missing(patient)
    if not any(runner["state"] != "lost" for runner in found):
        yield problem("no runner", "start one with `jobrunner start`")
    for runner in found:
        name, state = f"runner {runner['runner']}", runner["state"]
        seconds = runner["last_heartbeat_ago"].total_seconds()
        if state in ("lost", "silent"):
            said = f"{name} is {state}, last heard of {duration(seconds)} ago"
            advice = f"look at process {runner['pid']} on {runner['host']} and its log"
            # Of who is lost, others have taken the jobs over.
            yield (warning if state == "lost" else problem)(said, advice)
        elif runner["runner"] in missing:
            yield problem(
                f"{name} has not said what it holds since the server crashed: nobody claims jobs",
                f"it does, or is found dead, within its lease; else look at process {runner['pid']}"
                f" on {runner['host']}",
            )
        elif runner["trouble"]:
            yield warning(f"{name}: {runner['trouble']}", "see its log for more")
        else:
            ready = f"{runner['ready']} of {runner['workers']} workers ready"
            yield ok(f"{name} is {state}, {ready}")


def _missing(patient: Patient) -> set[str]:
    """Who has not said what it holds since a crash; a standby can not read that."""
    if patient.on_standby():
        return set()
    return {runner for (runner,) in patient.connection.execute(READ_MISSING)}


def queues(patient: Patient) -> Iterator[Finding]:
    """Look whether somebody serves what is waited for, and how long it has been waiting."""
    known = {queue["model"]: queue for queue in jobs.health(patient.connection)}
    due = {model: (count, age) for model, count, age in patient.connection.execute(READ_DUE)}
    served = any(queue["runners"] for queue in known.values())
    if not known and not due:
        yield ok("no model was ever registered, and no job waits")
    for model in sorted({*known, *due}):
        count, age = due.get(model, (0, 0.0))
        queue = known.get(model, {"runners": 0})
        start = f"start a runner with `jobrunner start --model {model}=module:Class`"
        if count and not queue["runners"]:
            yield problem(f"{_waiting(count)} for model {model}, which no runner serves", start)
        elif served and not queue["runners"]:
            yield warning(f"no runner serves model {model}; the web takes jobs for it", start)
        elif age > LATE_SECONDS:
            said = f"{_waiting(count)} for model {model}, the oldest for {duration(age)}"
            yield warning(said, "start more workers, or look why they are slow")
        else:
            in_work = queue["processing"]
            yield ok(f"model {model}: {queue['pending']} pending, {in_work} in work")


def overdue(patient: Patient) -> Iterator[Finding]:
    """Look for jobs in work that their timeout should have ended long ago."""
    values = {"default": DEFAULT_TIMEOUT_SECONDS, "more": OVERDUE_SECONDS}
    found = patient.connection.execute(READ_OVERDUE, values).fetchall()
    if not found:
        yield ok("no job is in work far beyond the timeout of its model")
    for model, runner, count, seconds in found:
        yield problem(
            f"in work far beyond the timeout of model {model}: {count}, for up to"
            f" {duration(seconds)}",
            f"look at runner {runner}; `jobrunner stop {runner} --now` has them handed back",
        )


def _waiting(count: int) -> str:
    return "1 job waits" if count == 1 else f"{count:,} jobs wait"
