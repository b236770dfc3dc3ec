"""Batches: jobs that a model takes together fail and succeed one by one."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from helpers import wait_for
from jobrunner import pace, worker
from jobrunner.errors import ModelLoadError
from jobrunner.outcome import Job, Outcome
from jobrunner.polling import readable
from jobrunner.workers import Workers
from pools import a_job, code, settle
from pools import run as run_as

Begin = Callable[..., Workers]


@pytest.fixture
def begin(start: Callable[..., Workers]) -> Begin:
    """Starts workers with a model of batching_models."""

    def begin(model: str = "Counting", **options: Any) -> Workers:
        return start(model, module="batching_models", name="counting", **options)

    return begin


def run(workers: Workers, *texts: str) -> list[Outcome]:
    return run_as(workers, *texts, model="counting")


def give(workers: Workers, jobs: list[Job], awaited: Path) -> None:
    """Give jobs of which one awaits a file, and wait until the model has begun with them."""
    workers.give(jobs)
    begun = awaited.with_name(f"{awaited.name}.begun")
    wait_for(begun.exists, "the model has begun")


def results(outcomes: list[Outcome]) -> list[Any]:
    return [json.loads(outcome.result or "null") for outcome in outcomes]


def sizes(outcomes: list[Outcome]) -> list[int]:
    return [result["size"] for result in results(outcomes)]


def test_jobs_are_given_together_as_many_as_the_model_takes(begin: Begin) -> None:
    outcomes = run(begin(), *(f"text {n}" for n in range(20)))

    assert sizes(outcomes) == [8] * 16 + [4] * 4
    assert [result["text"] for result in results(outcomes)] == [f"text {n}" for n in range(20)]
    assert [outcome.batch_size for outcome in outcomes] == [8] * 16 + [4] * 4


def test_all_workers_share_what_there_is(begin: Begin) -> None:
    outcomes = run(begin(count=2), *["sleep 0.1"] * 16)

    assert sizes(outcomes) == [8] * 16


def test_the_next_batch_is_filled_up_shortly_before_the_one_under_way_is_done(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SLOW_BATCH_SECONDS", 60)
    monkeypatch.setattr("jobrunner.workers.SLOW_SECONDS", 60.0)
    workers = begin()
    # So long that it is not over meanwhile.
    workers._pace.job_seconds = 2.0

    workers.give([a_job("one", "counting") for _ in range(11)])
    given = monotonic()

    assert workers.room == 5
    assert given < workers.fill_at < given + 16


@pytest.mark.parametrize(("others", "left"), [(4, 0), (3, 3)])
def test_half_a_batch_is_begun_before_outcomes_are_written_and_less_is_filled_up_first(
    begin: Begin, others: int, left: int
) -> None:
    workers = begin()
    workers.give([a_job("sleep 0.02", "counting") for _ in range(8 + others)])
    outcomes: list[Outcome] = []

    while len(outcomes) < 8:
        outcomes += workers.collect(readable(workers.pipes, 1))

    assert len(workers.jobs) == others
    assert workers.ahead == left


def test_an_exception_fails_only_the_item_that_raises_it(begin: Begin) -> None:
    workers = begin()

    outcomes = run(workers, "one", "raise a word", "two")

    assert [code(outcome) for outcome in outcomes] == [None, "model_error", None]
    assert outcomes[1].failure
    assert "ValueError: a word" in outcomes[1].failure.message
    assert sizes([outcomes[0], outcomes[2]]) == [1, 1]
    assert workers.lost == 0


def test_an_item_can_fail_without_an_exception(begin: Begin) -> None:
    outcomes = run(begin(), "one", "refuse a word", "two")

    assert [code(outcome) for outcome in outcomes] == [None, "model_error", None]
    assert sizes([outcomes[0], outcomes[2]]) == [3, 3]


def test_a_result_too_few_is_found_and_the_items_are_run_one_by_one(begin: Begin) -> None:
    outcomes = run(begin("Forgetful"), "one", "two", "three")

    assert sizes(outcomes) == [1, 1, 1]


def test_items_that_the_model_has_changed_are_made_anew_to_be_run_one_by_one(begin: Begin) -> None:
    outcomes = run(begin("Consuming"), "one", "raise a word", "two")

    assert [code(outcome) for outcome in outcomes] == [None, "model_error", None]
    assert outcomes[1].failure
    assert "ValueError: a word" in outcomes[1].failure.message


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("Unending", "predict_batch gave over 1 results for 1 items"),
        ("Unordered", "predict_batch should give a list of results"),
    ],
)
def test_results_without_end_or_order_are_none(begin: Begin, model: str, said: str) -> None:
    workers = begin(model)

    outcomes = run(workers, "one", "two")

    assert [code(outcome) for outcome in outcomes] == ["invalid_output"] * 2
    assert {outcome.failure.message for outcome in outcomes if outcome.failure} == {said}
    assert workers.lost == 0


@pytest.mark.parametrize(
    ("model", "deed", "failure"),
    [("Counting", "exit 3", "worker_lost"), ("Hasty", "sleep 600", "timeout")],
)
def test_a_batch_that_ends_its_worker_costs_only_the_job_that_did_it(
    begin: Begin, model: str, deed: str, failure: str
) -> None:
    workers = begin(model)

    outcomes = run(workers, *["one"] * 3, deed, *["two"] * 3)

    assert [code(outcome) for outcome in outcomes] == [None] * 3 + [failure] + [None] * 3
    # With the batch, and with the bad job.
    assert workers.lost == 2


def test_jobs_to_be_run_alone_are_not_given_back_to_be_batched_again(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = begin()
    jobs = [a_job(text, "counting") for text in ("exit 3", f"await {tmp_path}/go", *["one"] * 4)]
    workers.give(jobs)
    outcomes = settle(workers, (tmp_path / "go.begun").exists)
    monkeypatch.setattr("jobrunner.workers.SLOW_SECONDS", 0.0)

    assert workers.surplus() == []

    (tmp_path / "go").touch()
    outcomes += settle(workers, lambda: not workers.jobs)
    assert sorted(code(outcome) or "" for outcome in outcomes) == [""] * 5 + ["worker_lost"]


def test_a_poisoned_item_among_thirty_two_fails_alone(begin: Begin) -> None:
    outcomes = run(begin("Large"), *["one"] * 20, "raise it", *["two"] * 11)

    failed = [n for n, outcome in enumerate(outcomes) if code(outcome)]
    assert failed == [20]
    assert {outcome.batch_size for outcome in outcomes} == {1}


def test_a_cancelled_job_does_not_end_its_neighbours(begin: Begin, tmp_path: Path) -> None:
    workers = begin()
    jobs = [a_job(text, "counting") for text in (f"await {tmp_path}/go", "one", "two")]
    give(workers, jobs, tmp_path / "go")

    killed, outcomes = workers.kill_jobs({jobs[1].id})
    again, _ = workers.kill_jobs({jobs[1].id})

    assert killed == [jobs[1]]
    assert (again, outcomes) == ([], [])
    assert [job.id for job in workers.jobs] == [jobs[0].id, jobs[2].id]
    (tmp_path / "go").touch()
    left = settle(workers, lambda: not workers.jobs)
    assert [outcome.job.id for outcome in left] == [jobs[0].id, jobs[2].id]
    assert workers.lost == 0


def test_a_job_that_waits_for_its_turn_in_a_batch_is_cancelled_at_once(
    begin: Begin, tmp_path: Path
) -> None:
    workers = begin()
    jobs = [a_job(text, "counting") for text in ("raise it", f"await {tmp_path}/go", "one")]
    workers.give(jobs)
    outcomes = settle(workers, (tmp_path / "go.begun").exists)

    killed, _ = workers.kill_jobs({jobs[2].id})

    assert killed == [jobs[2]]
    (tmp_path / "go").touch()
    outcomes += settle(workers, lambda: not workers.jobs)
    assert [outcome.job.id for outcome in outcomes] == [jobs[0].id, jobs[1].id]
    assert workers.lost == 0


def test_a_batch_whose_jobs_are_cancelled_one_after_the_other_is_ended(
    begin: Begin, tmp_path: Path
) -> None:
    workers = begin()
    jobs = [a_job(f"await {tmp_path}/never", "counting") for _ in range(2)]
    give(workers, jobs, tmp_path / "never")

    for job in jobs:
        killed, _ = workers.kill_jobs({job.id})
        assert killed == [job]

    assert workers.ready == 0
    assert workers.jobs == []


def test_a_batch_of_cancelled_jobs_is_ended(begin: Begin, tmp_path: Path) -> None:
    workers = begin()
    jobs = [a_job(f"await {tmp_path}/never", "counting") for _ in range(3)]
    give(workers, jobs, tmp_path / "never")

    killed, _ = workers.kill_jobs({job.id for job in jobs})

    assert {job.id for job in killed} == {job.id for job in jobs}
    assert workers.jobs == []


def test_a_batch_that_is_not_full_waits_for_others_to_come(begin: Begin) -> None:
    workers = begin("Patient")
    until = monotonic() + 1
    workers.give([a_job("one", "counting")], hold_until=until)
    workers.give([a_job("two", "counting")], hold_until=until + 60)

    outcomes = settle(workers, lambda: not workers.jobs)

    assert sizes(outcomes) == [2, 2]
    assert monotonic() >= until


def test_a_stop_ends_the_wait(begin: Begin) -> None:
    workers = begin("Patient")
    workers.give([a_job("one", "counting")], hold_until=monotonic() + 3600)

    workers.hold_no_more()

    assert sizes(settle(workers, lambda: not workers.jobs)) == [1]


def test_nothing_is_wanted_for_a_call_that_is_under_way(begin: Begin, tmp_path: Path) -> None:
    workers = begin()
    workers.give([a_job(f"await {tmp_path}/go", "counting")])

    # A job more would only wait here, while another runner may have a worker free.
    assert workers.room == 0
    (tmp_path / "go").touch()
    settle(workers, lambda: not workers.jobs)


def test_a_full_batch_waits_for_nobody(begin: Begin) -> None:
    workers = begin("Patient")
    workers.give([a_job("one", "counting") for _ in range(8)], hold_until=monotonic() + 3600)

    assert sizes(settle(workers, lambda: not workers.jobs)) == [8] * 8


def test_large_inputs_go_together(begin: Begin) -> None:
    long = "long " * 20_000

    outcomes = run(begin(), *[long] * 3)

    # (What it says is too large to be kept.)
    assert [outcome.batch_size for outcome in outcomes] == [3, 3, 3]


def test_a_model_says_what_it_takes_and_gives(begin: Begin) -> None:
    card = begin("Typed").card

    assert card
    assert (card["version"], card["max_batch_size"]) == ("7", 1)
    assert card["input_schema"]
    assert card["input_schema"]["properties"]["stars"]["maximum"] == 5
    assert card["output_schema"]
    assert card["output_schema"]["required"] == ["verdict", "score"]


def test_the_types_of_a_batch_are_those_of_its_elements(begin: Begin) -> None:
    workers = begin("TypedBatch")

    [outcome] = run(workers, "good")

    assert outcome.result == '{"verdict": "good", "score": 1.0}'
    assert workers.card
    assert workers.card["version"] != "unversioned"


def test_an_item_is_of_the_type_of_the_hint(begin: Begin) -> None:
    [outcome] = run(begin("Typed"), "good")

    assert outcome.result == '{"verdict": "good, 3", "score": 0.6}'


def test_an_input_that_is_not_of_the_type_fails_and_may_be_tried_again(begin: Begin) -> None:
    [outcome] = run(begin("Typed"), "x")

    assert code(outcome) == "invalid_input"
    assert outcome.failure
    # Another version may run as well, which takes it.
    assert outcome.failure.retryable
    assert outcome.failure.message.startswith("the input is not valid: text: ")


def test_an_error_does_not_quote_the_tag_of_an_input(begin: Begin) -> None:
    [outcome] = run(begin("TakesTagged"), "a secret")

    assert code(outcome) == "invalid_input"
    assert outcome.failure
    assert "secret" not in outcome.failure.message


def test_a_result_has_the_names_that_its_schema_has(begin: Begin) -> None:
    [outcome] = run(begin("Aliased"), "Ada")

    assert outcome.result == '{"fullName": "Ada"}'


def test_a_result_that_is_not_of_the_type_is_not_kept(begin: Begin) -> None:
    [outcome] = run(begin("Typed"), "wrong")

    assert code(outcome) == "invalid_output"
    assert outcome.failure
    assert outcome.failure.message == "score: Field required"


def test_limits_that_stand_beside_a_type_are_kept(begin: Begin) -> None:
    workers = begin("Limited")

    outcomes = run(workers, "too long")

    assert [code(outcome) for outcome in outcomes] == ["invalid_output"]
    assert workers.card
    assert workers.card["output_schema"] == {"type": "number", "minimum": 0, "maximum": 1}


def test_a_dict_says_what_its_values_are(begin: Begin) -> None:
    workers = begin("Counted")

    good, bad = run(workers, "one two", "not many")

    assert (code(good), code(bad)) == (None, "invalid_output")
    assert workers.card
    assert workers.card["input_schema"] == {
        "type": "object",
        "additionalProperties": {"type": "string"},
    }


def test_whatever_a_type_raises_fails_the_job_alone(begin: Begin) -> None:
    workers = begin("Fussy")

    good, bad = run(workers, "good", "bad")

    assert (code(good), code(bad)) == (None, "model_error")
    assert workers.lost == 0


def test_only_the_first_parameter_is_the_item(begin: Begin) -> None:
    card = begin("WithOptions").card

    assert card
    assert card["input_schema"] is None


def test_one_of_several_types_may_be_taken(begin: Begin) -> None:
    [one, other] = run(begin("Either"), "text", "longer text")

    assert (one.result, other.result) == ('{"took": "Short"}', '{"took": "Review"}')


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("Half", "max_batch_size should be a whole number"),
        ("Quarters", "max_batch_size should be a whole number"),
        ("Awaited", "predict is async: write it as a plain method"),
        ("TakesTheUnlimited", "the input has a default or limit of NaN or infinity"),
        ("Unreadable", "the type hints of predict can not be read"),
        ("TakesAText", "the input should be an object"),
        ("TooMany", "a max_batch_size over 1 needs a method predict_batch"),
        ("Negative", "max_wait_ms should be a number of milliseconds at least 0"),
    ],
)
def test_a_model_that_contradicts_itself_is_not_served(
    begin: Begin, model: str, reason: str
) -> None:
    with pytest.raises(ModelLoadError, match=reason):
        begin(model)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there it can be read")
@pytest.mark.parametrize("model", ["TakesTypingsDict", "GivesTypingsDict"])
def test_a_dict_that_this_python_can_not_read_types_from_says_what_to_write(
    begin: Begin, model: str
) -> None:
    with pytest.raises(ModelLoadError, match="write `from typing_extensions import TypedDict`"):
        begin(model)


def test_a_model_that_is_not_well_is_replaced(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signs = tmp_path / "unwell"
    monkeypatch.setenv("SIGNS", str(signs))
    workers = begin("Unwell")
    [before] = results(run(workers, "one"))
    signs.touch()

    settle(workers, lambda: workers.lost == 1, worker.HEALTH_SECONDS + 15)
    signs.unlink()

    [after] = results(run(workers, "two"))
    assert after["pid"] != before["pid"]


def test_a_model_that_does_not_say_how_it_is_is_replaced_and_its_next_job_waits(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signs = tmp_path / "stuck"
    monkeypatch.setenv("SIGNS", str(signs))
    workers = begin("Stuck")
    [before] = results(run(workers, "one"))
    signs.touch()
    asked = tmp_path / "stuck.asked"
    wait_for(asked.exists, "it is asked", worker.HEALTH_SECONDS + 15)

    workers.give([a_job("two", "counting")])
    limit = worker.HEALTH_ANSWER_SECONDS + 45
    [after] = results(settle(workers, lambda: not workers.jobs, limit))

    assert (workers.lost, after["pid"] == before["pid"]) == (1, False)


def test_a_worker_whose_model_was_changed_meanwhile_is_not_taken_in(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signs = tmp_path / "changed"
    monkeypatch.setenv("SIGNS", str(signs))
    workers = begin("Renewed")
    signs.touch()

    run(workers, "one")
    settle(workers, lambda: workers.trouble is not None)

    assert workers.ready == 0
    assert "the model is not what it was" in str(workers.trouble)
    signs.unlink()
    settle(workers, lambda: workers.ready == 1)
    assert workers.card
    assert workers.card["version"] == "1"


def test_a_model_warms_up_and_cleans_up(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNS", str(tmp_path / "clean"))
    workers = begin("Tidy")

    assert results(run(workers, "one")) == [{"warm": True}]
    workers.dismiss()
    workers.end()

    assert (tmp_path / "clean").read_text() == "clean"


def test_a_model_that_fails_to_clean_up_says_so_in_a_line(
    begin: Begin, capfd: pytest.CaptureFixture[str]
) -> None:
    workers = begin("Untidy")
    run(workers, "one")

    workers.dismiss()
    workers.end()

    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert 'reason="ValueError: cannot clean up"' in said
