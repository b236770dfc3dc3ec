"""The checker of chaos runs finds what is wrong and nothing else; and one short real run."""

from dataclasses import replace
from traceback import format_exc
from typing import Any

import pytest

from chaos import campaign, checker
from chaos.checker import Bounds
from chaos.histories import Disturbance, Execution, History, Move, Operation, Row, RunnerMove
from chaos.intervals import Measure, union
from chaos.plan import KINDS, Fault, Load, Plan, draw
from chaos.system import TRACEBACK

A, B = "host-11-aaaa", "host-22-bbbb"
JOB, TEXT = "job-1", "1-abc work 0.1"

PENDING = {"new": "pending", "attempt": 0}
CLAIMED = {"new": "processing", "attempt": 1, "token": "t1", "runner": A}
COMPLETED = {"new": "completed", "attempt": 1, "runner": A, "execution": "e1"}
RESCUED = {"new": "pending", "attempt": 1, "code": "runner_lost"}
CLAIMED_AGAIN = {"new": "processing", "attempt": 2, "token": "t2", "runner": B}
COMPLETED_AGAIN = {"new": "completed", "attempt": 2, "runner": B, "execution": "e2"}
CANCELLED = {"new": "failed", "cancelled": True}

SIMPLE = (PENDING, CLAIMED, COMPLETED)
RESCUE = (PENDING, CLAIMED, RESCUED, CLAIMED_AGAIN, COMPLETED_AGAIN)


def moves_of(*told: dict[str, Any]) -> list[Move]:
    """Moves of one job, a second apart from 1 on, each from where the one before has led."""
    moves: list[Move] = []
    for place, new in enumerate(told):
        before = moves[-1] if moves else None
        begin = {
            "old": before.new if before else None,
            "old_attempt": before.attempt if before else 0,
            "attempt": before.attempt if before else 0,
            "old_token": before.token if before else None,
            "old_runner": before.runner if before else None,
        }
        end = {"token": None, "runner": None, "run_at": 1.0, "at": place + 1.0}
        moves.append(Move(**{"job": JOB, "text": TEXT} | begin | end | new))
    return moves


def execution(name: str, runner: int, started: float, last_seen: float) -> Execution:
    return Execution(name, TEXT, runner + 1, runner, started, last_seen, ended=True)


def row_after(move: Move, errors: tuple[int, ...] = ()) -> Row:
    return Row(move.job, move.text, str(move.new), move.attempt, 3, move.token, None, errors)


def story(*told: dict[str, Any], **more: Any) -> History:
    """A history of one job, submitted by HTTP and acknowledged; good as it is."""
    moves = moves_of(*told)
    errors = tuple(move.attempt for move in moves if move.code)
    executions = [execution("e1", 11, 2.1, 2.5)]
    executions += [execution("e2", 22, 4.1, 4.5)] if len(told) > 4 else []
    made = History(
        operations=[Operation("submit", TEXT, "ok", 0.9, 1.1, JOB)],
        moves=moves,
        executions=executions if len(told) > 2 else [],
        rows=[row_after(moves[-1], errors)],
        healed=10.0,
        drained=10.0,
        workers=2,
    )
    return replace(made, **more)


def rules(history: History, bounds: Bounds | None = None) -> set[str]:
    """The rules that a history breaks."""
    return {violation.rule for violation in checker.check(history, bounds).violations}


@pytest.mark.parametrize("told", [SIMPLE, RESCUE], ids=["simple", "rescue"])
def test_a_good_history_breaks_no_rule(told: tuple[dict[str, Any], ...]) -> None:
    assert rules(story(*told)) == set()


def test_a_retry_a_release_and_a_cancel_are_good() -> None:
    retried = {"new": "pending", "attempt": 1, "code": "model_error", "run_at": 2.9}
    released = {"new": "pending", "attempt": 0}

    assert rules(story(PENDING, CLAIMED, retried, CLAIMED_AGAIN, COMPLETED_AGAIN)) == set()
    assert rules(story(PENDING, CLAIMED, released, CLAIMED | {"token": "t2"},
                       COMPLETED, executions=[execution("e1", 11, 4.1, 4.5)])) == set()  # fmt: skip
    cancel = Operation("cancel", TEXT, "ok", 1.5, 2.1, JOB)
    assert (
        rules(story(PENDING, CANCELLED, operations=[*story(PENDING).operations, cancel])) == set()
    )


def test_an_unknown_submit_may_be_there_or_not() -> None:
    unknown = Operation("submit", TEXT, "unknown", 0.9, 1.1)

    assert rules(story(*SIMPLE, operations=[unknown])) == set()
    assert rules(History(operations=[unknown], drained=1.0)) == set()


def test_an_acknowledged_job_that_is_not_there_is_lost() -> None:
    history = story(*SIMPLE)
    history.operations.append(Operation("submit", "2-def work 0.1", "ok", 1, 2, "job-2"))

    assert rules(history) == {"lost"}


@pytest.mark.parametrize("result", ["failed", None])
def test_a_job_that_was_refused_or_never_submitted_is_unexpected(result: Any) -> None:
    refused = [Operation("submit", TEXT, result, 0.9, 1.1)] if result else []

    assert rules(story(*SIMPLE, operations=refused)) == {"unexpected"}


def test_two_jobs_of_one_submission_are_unexpected_and_break_its_key() -> None:
    history = story(*SIMPLE)
    history.rows = [replace(history.rows[0], key="k")]
    twin = [replace(move, job="job-2", token=move.token and "t9") for move in history.moves]
    twin = [replace(move, old_token=move.old_token and "t9") for move in twin]
    history.moves += twin
    history.rows.append(replace(history.rows[0], job="job-2"))

    assert {"unexpected", "key"} <= rules(history)


def test_a_job_that_never_ends_is_unfinished() -> None:
    assert rules(story(PENDING, CLAIMED, drained=None)) == {"unfinished"}


def test_a_final_state_that_changes_breaks_its_rule() -> None:
    assert {"final", "move"} <= rules(story(*SIMPLE, CANCELLED))
    assert "final" in rules(story(*SIMPLE, {"new": "completed", "attempt": 1}))


def test_a_row_that_is_not_what_its_moves_say_breaks_the_rule() -> None:
    history = story(*SIMPLE)
    history.rows = [replace(history.rows[0], status="failed")]

    assert rules(history) == {"final"}


def test_two_live_claims_are_no_move() -> None:
    history = story(PENDING, CLAIMED, CLAIMED_AGAIN, COMPLETED_AGAIN)

    assert "move: job-1: two live claims" in map(str, checker.check(history).violations)


def test_a_move_that_does_not_follow_the_one_before_is_found() -> None:
    history = story(*RESCUE)
    del history.moves[2]

    assert "move" in rules(history)


@pytest.mark.parametrize(
    "told",
    [
        (PENDING, CLAIMED | {"attempt": 0}),
        (PENDING, CLAIMED | {"attempt": 2}),
        (PENDING, CLAIMED, RESCUED | {"attempt": 0}),
        (PENDING, CLAIMED, {"new": "pending", "attempt": 1}),
        (PENDING, CLAIMED, COMPLETED | {"attempt": 2}),
    ],
    ids=["uncounted claim", "counted twice", "failure taken back", "counted release", "by finish"],
)
def test_an_attempt_that_is_counted_wrong_is_found(told: tuple[dict[str, Any], ...]) -> None:
    assert "attempt" in rules(story(*told))


def test_more_attempts_than_allowed_are_found() -> None:
    history = story(*RESCUE)
    history.rows = [replace(history.rows[0], max_attempts=1)]

    assert rules(history) == {"attempt"}


@pytest.mark.parametrize(
    "change",
    [
        {1: CLAIMED | {"token": None}},
        {2: RESCUED | {"token": "t1"}},
        {3: CLAIMED_AGAIN | {"token": "t1"}},
    ],
    ids=["a claim without one", "kept after the claim", "used again"],
)
def test_tokens_belong_to_one_claim_each(change: dict[int, dict[str, Any]]) -> None:
    told = [change.get(place, move) for place, move in enumerate(RESCUE)]

    assert "token" in rules(story(*told))


def test_an_outcome_of_an_earlier_claim_is_found() -> None:
    stale = COMPLETED_AGAIN | {"execution": "e1"}

    assert rules(story(PENDING, CLAIMED, RESCUED, CLAIMED_AGAIN, stale)) == {"outcome"}


def test_an_outcome_of_nobody_is_found() -> None:
    assert rules(story(*SIMPLE, executions=[])) == {"outcome"}


def test_a_model_at_work_without_a_claim_or_twice_for_one_is_found() -> None:
    before, twice = execution("e0", 11, 1.5, 1.6), execution("e0", 11, 2.2, 2.3)

    for extra in (before, twice):
        history = story(*SIMPLE)
        history.executions.append(extra)
        assert rules(history) == {"execution"}


CRASH = Disturbance("postgres_immediate_restart", 2.3, 2.6)
DEATH = (2.4, 11)


@pytest.mark.parametrize(
    ("crashes", "taken_up_again", "broken"),
    [([CRASH], 1, set()), ([], 0, {"execution", "outcome"})],
    ids=["after a crash", "without one"],
)
def test_a_claim_is_as_old_as_it_says_where_a_crash_has_forgotten_it(
    crashes: list[Disturbance], taken_up_again: int, broken: set[str]
) -> None:
    again = (PENDING, CLAIMED | {"at": 3.0, "started": 2.0}, COMPLETED | {"at": 4.0})

    report = checker.check(story(*again, disturbances=crashes))

    assert report.figures["taken_up_again"] == taken_up_again
    assert {violation.rule for violation in report.violations} == broken


# The server forgot its claim, and another runner has started it since.
FORGOTTEN = (
    PENDING,
    CLAIMED_AGAIN | {"attempt": 1, "at": 4.0},
    COMPLETED_AGAIN | {"attempt": 1, "at": 5.0},
)


@pytest.mark.parametrize(
    ("crash", "deaths", "lost", "broken"),
    [
        (CRASH, [DEATH], [], set()),
        (CRASH, [], [RunnerMove(A, was_lost=False, is_lost=True, at=6.0)], set()),
        (replace(CRASH, kind="failover"), [DEATH], [], set()),
        (CRASH, [], [], {"execution"}),
        (CRASH, [(2.4, 22)], [], {"execution"}),
        (CRASH, [(1.0, 11)], [], {"execution"}),
        (replace(CRASH, kind="postgres_fast_restart"), [DEATH], [], {"execution"}),
        (replace(CRASH, begin=3.2, end=3.5), [DEATH], [], {"execution"}),
        (replace(CRASH, begin=1.0, end=2.0), [DEATH], [], {"execution"}),
    ],
    ids=[
        "it died", "it was found dead", "by a failover", "it lives", "another died",
        "it died before", "no crash", "on disk by then", "a crash before",
    ],
)  # fmt: skip
def test_a_claim_is_forgotten_for_good_only_by_a_crash_and_the_end_of_its_runner(
    crash: Disturbance,
    deaths: list[tuple[float, int]],
    lost: list[RunnerMove],
    broken: set[str],
) -> None:
    executions = [execution("e1", 11, 2.1, 2.4), execution("e2", 22, 4.1, 4.5)]
    pause = Disturbance("runner_pause", 2.2, 6.0, (11,))

    history = story(
        *FORGOTTEN, executions=executions, disturbances=[crash, pause], deaths=deaths,
        runner_moves=lost,
    )  # fmt: skip

    assert rules(history) == broken


def test_who_has_claimed_since_the_crash_has_forgotten_nothing_for_good() -> None:
    """It has said what it holds, before it was let in."""
    told = story(
        *FORGOTTEN,
        executions=[execution("e1", 11, 2.1, 2.4), execution("e2", 22, 4.1, 4.5)],
        disturbances=[CRASH],
        deaths=[(9.0, 11)],
    )
    assert rules(told) == set()
    claimed_since = moves_of(PENDING, CLAIMED | {"at": 3.5})
    told.moves += [replace(move, job="job-2", text="2-def work 9") for move in claimed_since]

    assert "execution" in rules(told)


def test_an_execution_of_a_claim_that_was_forgotten_is_none_of_the_claim_before() -> None:
    failed = {"new": "pending", "attempt": 1, "code": "model_error", "at": 1.8, "run_at": 1.9}
    told = (
        PENDING,
        CLAIMED | {"at": 1.2},
        failed,
        CLAIMED_AGAIN | {"at": 4.0},
        COMPLETED_AGAIN | {"at": 5.0},
    )
    executions = [
        execution("e0", 11, 1.3, 1.7),
        execution("e1", 11, 2.1, 2.4),
        execution("e2", 22, 4.1, 4.5),
    ]

    def broken(**more: Any) -> set[str]:
        return rules(story(*told, executions=executions, **more))

    assert broken(disturbances=[CRASH], deaths=[DEATH]) == set()
    assert "execution" in broken(disturbances=[CRASH])
    assert "execution" in broken(deaths=[DEATH])


def test_executions_that_overlap_are_counted_and_good_where_the_earlier_was_fenced() -> None:
    fenced = [execution("e1", 11, 2.1, 4.4), execution("e2", 22, 4.1, 4.5)]

    report = checker.check(story(*RESCUE, executions=fenced))

    assert report.violations == []
    assert report.figures["overlaps"] == 1


def test_a_model_that_goes_on_long_after_its_claim_was_lost_is_late() -> None:
    stale = [execution("e1", 11, 2.1, 9.0), execution("e2", 22, 4.1, 4.5)]

    assert rules(story(*RESCUE, executions=stale)) == {"late"}


def with_cancel(*told: dict[str, Any], at: float) -> History:
    history = story(*told)
    history.operations.append(Operation("cancel", TEXT, "ok", at - 0.1, at, JOB))
    return history


def test_after_an_acknowledged_cancel_a_job_neither_starts_nor_goes_back() -> None:
    assert "cancel" in rules(with_cancel(*SIMPLE, at=1.5))
    assert "cancel" in rules(with_cancel(*RESCUE, at=2.5))
    assert rules(with_cancel(*SIMPLE, at=2.5)) == set()  # completed soon after: it came too late


def test_a_cancel_that_takes_too_long_is_late() -> None:
    late = (PENDING, CLAIMED, CANCELLED | {"attempt": 1, "at": 9.0})

    assert rules(with_cancel(*late, at=2.5)) == {"late"}


def test_a_runner_that_is_found_dead_has_to_have_a_cause() -> None:
    lost = [RunnerMove(A, was_lost=False, is_lost=True, at=3.0)]
    pause = Disturbance("runner_pause", 1.0, 5.0, (11,))

    assert rules(story(*RESCUE, runner_moves=lost)) == {"runner"}
    assert rules(story(*RESCUE, runner_moves=lost, disturbances=[pause])) == set()
    assert rules(story(*RESCUE, runner_moves=lost, deaths=[(2.5, 11)])) == set()
    assert rules(
        story(*RESCUE, runner_moves=lost, disturbances=[replace(pause, runners=(22,))])
    ) == {"runner"}


def test_a_runner_that_comes_back_under_its_lost_id_is_found() -> None:
    revived = [RunnerMove(A, was_lost=True, is_lost=False, at=3.0)]

    assert rules(story(*SIMPLE, runner_moves=revived)) == {"runner"}


def test_a_job_that_is_taken_from_a_runner_that_lives_is_found() -> None:
    robbed = RESCUED | {"holder_lives": True}

    assert rules(story(PENDING, CLAIMED, robbed, CLAIMED_AGAIN, COMPLETED_AGAIN)) == {"runner"}


def test_a_rescue_that_takes_too_long_is_late() -> None:
    slow = (PENDING, CLAIMED, *({**move, "at": place + 9.0} for place, move in enumerate(
        (RESCUED, CLAIMED_AGAIN, COMPLETED_AGAIN)
    )))  # fmt: skip
    executions = [execution("e1", 11, 2.1, 2.5), execution("e2", 22, 10.1, 10.5)]
    kills = [(2.5, 11)]

    assert rules(story(*slow, executions=executions, kills=kills)) == {"late"}
    assert rules(story(*RESCUE, kills=kills)) == set()


def test_a_job_that_is_not_started_while_workers_are_idle_is_late() -> None:
    slow = (PENDING, CLAIMED | {"at": 8.0}, COMPLETED | {"at": 9.0})
    executions = [execution("e1", 11, 8.1, 8.5)]
    outage = [Disturbance("postgres_fast_restart", 1.0, 2.0)]

    assert rules(story(*slow, executions=executions)) == {"late"}
    assert rules(story(*slow, executions=executions, disturbances=outage)) == set()


def test_what_is_left_running_is_found() -> None:
    assert rules(story(*SIMPLE, leftovers=["process 7"])) == {"leftover"}


def test_what_ended_with_a_traceback_is_found() -> None:
    said = "info started\n" + traceback_of(ZeroDivisionError("by zero")) + "info stopped\n"

    assert TRACEBACK.findall(said) == ["ZeroDivisionError: by zero"]
    assert rules(story(*SIMPLE, crashes=["runner-1: ZeroDivisionError: by zero"])) == {"crash"}


def traceback_of(error: Exception) -> str:
    try:
        raise error
    except Exception:
        return format_exc()


def test_intervals_are_merged_and_measured() -> None:
    assert union([(3, 4), (0, 1), (0.5, 2), (5, 5)]) == [(0, 2), (3, 4)]
    assert Measure([(0, 2), (3, 4)]).within(1, 3.5) == 1.5
    assert Measure([(0, 2), (3, 4)]).outside(1, 3.5) == 1.0
    assert Measure([]).within(0, 9) == 0


def test_a_plan_is_drawn_from_its_seed_alone() -> None:
    assert draw(7, 20) == draw(7, 20)
    assert draw(7, 20) != draw(8, 20)


@pytest.mark.parametrize("seconds", [20, 60])
def test_a_few_seeds_in_a_row_have_every_class_of_faults(seconds: float) -> None:
    drawn = {fault.kind for seed in range(1, 4) for fault in draw(seed, seconds).faults}

    assert drawn == set(KINDS)


SHORT = Plan(
    seed=1,
    seconds=5,
    faults=(
        Fault(1.0, "runner_kill", 0.5, 0),
        Fault(1.5, "cut_web", 0.2, 0),
        Fault(2.0, "postgres_immediate_restart", 0.3, 0),
        Fault(3.5, "terminate_all"),
        Fault(4.0, "worker_kill", 0, 1),
    ),
    load=Load(deeds=("work",), cancel_rate=6),
    name="short",
)


@pytest.mark.process
def test_a_short_run_with_faults_breaks_no_rule() -> None:
    outcome = campaign.run(SHORT)

    assert outcome.report.violations == []
    assert outcome.unfired == []
    assert outcome.report.figures["acknowledged"] > 0
