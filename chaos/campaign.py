"""One run: start the system, use it, break it by the plan, mend it, drain it, read it out."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from time import monotonic, time

import psycopg

from chaos import audit, checker
from chaos.checker import Bounds, Report
from chaos.clients import Clients
from chaos.faults import DEEDS, Doing, Hit
from chaos.histories import Disturbance, History, read_executions
from chaos.plan import LOAD_KINDS, Fault, Plan
from chaos.postgres import wait_for
from chaos.system import WORKERS, System
from jobrunner.errors import JobrunnerError

TURN_SECONDS = 0.05
RETRY_SECONDS = 0.3
OVERTIME_SECONDS = 30.0
GONE_SECONDS = 5.0
RUNNER_PROGRAM = ("-m", "jobrunner")

UNFINISHED = "select count(*) from job where finished_at is null"


@dataclass(frozen=True)
class Outcome:
    """What came of a run; ``folder`` is there only if something was wrong."""

    plan: Plan
    report: Report
    fired: Counter[str]
    folder: Path | None

    @property
    def unfired(self) -> list[str]:
        """Classes of faults that were planned and never happened."""
        return sorted(kind for kind in self.plan.kinds if not self.fired[kind])

    @property
    def fine(self) -> bool:
        """Whether nothing was violated and everything planned has happened."""
        return not self.report.violations and not self.unfired

    def forget(self) -> None:
        """Delete the folder."""
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


class Storm:
    """The faults of a plan while they come and go."""

    def __init__(self, plan: Plan, system: System) -> None:
        self.fired: Counter[str] = Counter()
        self.disturbances: list[Disturbance] = []
        self.kills: list[tuple[float, int]] = []
        self._system = system
        self._waiting = sorted(plan.faults, key=lambda fault: fault.at)
        self._going: list[tuple[float, Fault, Doing, Hit, float]] = []

    def turn(self, now: float) -> None:
        """Do what is due, by the seconds since the start."""
        while self._waiting and self._waiting[0].at <= now:
            fault = self._waiting.pop(0)
            if self._comes_later(fault) or not self._begin(fault, now):
                again = Fault(now + RETRY_SECONDS, fault.kind, fault.seconds, fault.target)
                self._waiting = sorted([*self._waiting, again], key=lambda fault: fault.at)
        for one in [one for one in self._going if one[0] <= now]:
            self._go_on(*one[1:], now)
            self._going.remove(one)

    def waits(self, overtime: float) -> bool:
        """Whether a fault still waits for another to be over, and may."""
        return bool(self._waiting) and overtime < OVERTIME_SECONDS

    def mend(self) -> None:
        """Bring every fault to its end."""
        self._waiting.clear()
        while self._going:
            self.turn(float("inf"))
            Event().wait(TURN_SECONDS)

    def _comes_later(self, fault: Fault) -> bool:
        """Whether it would take away what another that has to wait is to break."""
        return fault.kind == "failover" and any(one.kind == "standby_away" for one in self._waiting)

    def _begin(self, fault: Fault, now: float) -> bool:
        doing, begun = DEEDS[fault.kind](self._system, fault), time()
        try:
            hit = next(doing)
        except (StopIteration, JobrunnerError, psycopg.Error):
            return False
        self.fired[fault.kind] += 1
        if fault.kind == "runner_kill":
            self.kills.append((begun, hit[0]))
        self._going.append((now + fault.seconds, fault, doing, hit, begun))
        return True

    def _go_on(self, fault: Fault, doing: Doing, hit: Hit, begun: float, now: float) -> None:
        try:
            hit = next(doing)
            self._going.append((min(now, 1e9) + fault.seconds, fault, doing, hit, begun))
        except StopIteration:
            self.disturbances.append(Disturbance(fault.kind, begun, time(), hit))


def run(plan: Plan, program: Sequence[str] = RUNNER_PROGRAM) -> Outcome:
    """Run a plan with the real runner, or with another program in its place."""
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{plan.name}-{plan.seed}-"))
    system = System(plan, folder, list(program))
    try:
        system.start()
        history, fired = _suffer(plan, system)
        history.leftovers += system.stop_services()
        history.crashes = system.crashes()
        _read_out(history, system)
        fired += _fired_by_load(history)
    finally:
        system.end()
    history.leftovers += _still_alive(history, system)
    report = checker.check(history, Bounds(recovery=plan.recovery_seconds))
    outcome = Outcome(plan, report, fired, folder)
    if not outcome.fine:
        history.save(folder / "history.json")
        return outcome
    outcome.forget()
    return replace(outcome, folder=None)


def _suffer(plan: Plan, system: System) -> tuple[History, Counter[str]]:
    """Use the system while the faults come, then mend and drain it."""
    clients = Clients(plan.load, plan.seed, system.web_port, system.direct_url)
    storm, started = Storm(plan, system), monotonic()
    clients.start()
    try:
        while (now := monotonic() - started) < plan.seconds or storm.waits(now - plan.seconds):
            storm.turn(now)
            system.tend()
            Event().wait(TURN_SECONDS)
        storm.mend()
        system.heal()
    finally:
        clients.end()
    healed = time()
    drained = _drain(system, plan.drain_seconds)
    history = History(
        operations=clients.notebook.operations,
        disturbances=storm.disturbances,
        kills=storm.kills,
        healed=healed,
        drained=drained,
        deaths=system.deaths,
        workers=WORKERS * plan.runners,
    )
    return history, storm.fired


def _drain(system: System, seconds: float) -> float | None:
    """Wait until every job is final; say when that was."""
    deadline = monotonic() + seconds
    with system.postgres.connect() as connection:
        while monotonic() < deadline:
            system.tend()
            row = connection.execute(UNFINISHED).fetchone()
            if row and row[0] == 0:
                return time()
            Event().wait(TURN_SECONDS)
    return None


def _read_out(history: History, system: System) -> None:
    with system.postgres.connect() as connection:
        history.rows = audit.rows(connection)
        history.moves = audit.moves(connection)
        history.runner_moves = audit.runner_moves(connection)
        query = "select id from runner where lost_at is null"
        history.leftovers += [f"runner row {row[0]}" for row in connection.execute(query)]
    history.executions = read_executions(system.worker_log)


def _fired_by_load(history: History) -> Counter[str]:
    """Count what the load has brought: cancels that won, and failures by the deed."""
    fired = Counter(move.text.split(" ")[1] for move in history.moves if move.code)
    fired["cancel"] = sum(move.cancelled for move in history.moves)
    return Counter({kind: fired[kind] for kind in LOAD_KINDS})


def _still_alive(history: History, system: System) -> list[str]:
    """Name the processes of the run that have not ended."""
    pids = {pid for service in (*system.runners, system.web) for pid in service.pids}
    pids |= {execution.worker for execution in history.executions}
    try:
        wait_for(lambda: not any(map(_lives, pids)), "all are gone", GONE_SECONDS)
    except TimeoutError:
        return [f"process {pid}" for pid in pids if _lives(pid)]
    return []


def _lives(pid: int) -> bool:
    """Whether a process runs that is one of ours: a number may be given again."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return any(name in command for name in (b"jobrunner", b"gunicorn", b"chaos.mutant"))
