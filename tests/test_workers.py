"""Isolation of the model: whatever it does costs the attempt that it was on, and no more."""

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic
from uuid import uuid4

import pytest

from helpers import wait_for
from jobrunner import frames
from jobrunner.errors import ModelLoadError
from jobrunner.inbox import MAX_INPUTS, Inbox
from jobrunner.outcome import Job, Outcome, judge
from jobrunner.pace import Pace
from jobrunner.polling import readable
from pools import MAX_RESULT_BYTES, Start, a_job, code, run, settle

# The timeout of a model that overruns it, in seconds: others must have time enough.
SHORT = "3"


def a_reply(result: object) -> bytes:
    """What a worker says after the job's id."""
    return b'{"seconds":1.0}\n' + json.dumps(result, ensure_ascii=False).encode()


def test_a_model_answers_and_its_time_is_measured(start: Start) -> None:
    workers = start()

    [outcome] = run(workers, "sleep 0.1")

    assert outcome.result == '{"sentiment": "positive", "confidence": 0.5}'
    assert 0.1 <= outcome.seconds < 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("segfault", "worker_lost"),
        ("exit 0", "worker_lost"),
        ("exit 3", "worker_lost"),
        ("sys_exit", "model_error"),
        ("hang", "timeout"),
        ("dribble", "timeout"),
        ("block_signals", "timeout"),
        ("raise a word", "model_error"),
        ("raise_unpicklable", "model_error"),
        ("raise_unspeakable", "model_error"),
        ("raise_hopeless", "model_error"),
        ("raise_base", "model_error"),
        ("raise_undecided", "model_error"),
        ("nan", "invalid_output"),
        ("nothing", "invalid_output"),
        ("object", "invalid_output"),
        ("huge", "invalid_output"),
        ("recurse", "invalid_output"),
        ("surrogate", "invalid_output"),
        ("shape", "invalid_output"),
        ("range", "invalid_output"),
    ],
)
def test_what_a_model_does_wrong_fails_its_attempt_and_no_other(
    start: Start, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    if expected == "timeout":
        monkeypatch.setenv("TOLD_TIMEOUT_SECONDS", SHORT)
    workers = start(count=2)

    bad, neighbour = run(workers, text, "sleep 0.2")

    assert code(bad) == expected
    assert neighbour.result is not None
    settle(workers, lambda: workers.ready == 2)
    assert [code(outcome) for outcome in run(workers, "well", "well")] == [None, None]


@pytest.mark.parametrize(
    "said",
    [
        frames.frame(b'{"ready": true}'),
        frames.frame(b'{"ready": true, "timeout_seconds": "x"}'),
        frames.frame(b'{"ready": true, "timeout_seconds": 5.0}'),
        frames.frame(b'{"job_id": 7}'),
        frames.frame(b"[]"),
        frames.frame(b"not json"),
        b"\xff\xff\xff\xff",
    ],
)
def test_nonsense_on_the_pipe_costs_that_attempt_alone(start: Start, said: bytes) -> None:
    workers = start(count=2)

    bad, neighbour = run(workers, f"speak {said.hex()}", "sleep 0.2")

    assert code(bad) == "invalid_output"
    assert neighbour.result is not None
    settle(workers, lambda: workers.ready == 2)


@pytest.mark.parametrize("more", ["again", "ffffffff"])
def test_a_good_reply_counts_whatever_follows_it(start: Start, more: str) -> None:
    workers = start()
    job = a_job("")
    job.input = f'{{"text": "reply_and {job.id} {more}"}}'
    workers.give([job])

    outcomes = settle(workers, lambda: workers.lost == 1 and workers.ready == 1)

    assert [outcome.result is not None for outcome in outcomes] == [True]


def test_a_good_reply_counts_when_the_worker_is_killed_for_what_follows_it(start: Start) -> None:
    workers = start()
    job = a_job("")
    job.input = f'{{"text": "reply_and {job.id} ffffffff"}}'
    workers.give([job])
    [worker] = workers._workers
    assert readable([worker.pipe.fileno()], 15)

    outcomes = worker.kill()

    assert [outcome.result is not None for outcome in outcomes] == [True]


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_frames_are_put_together_from_pieces_of_any_size(size: int) -> None:
    payloads = [b"a", b"", b"b" * 70_000, b"c" * 5]
    said = b"".join(map(frames.frame, payloads))
    reader = frames.FrameReader(100_000)

    heard = [p for at in range(0, len(said), size) for p in reader.feed(said[at : at + size])]

    assert heard == payloads


@pytest.mark.parametrize("said", [b"\\ud800", b"\xff", b"\xed\xa0\x80"])
def test_a_result_that_is_no_unicode_fails_its_attempt(said: bytes) -> None:
    reply = b'{"seconds":0.1}\n{"said":"%b"}' % said

    outcome = judge(a_job("x", "free"), reply, MAX_RESULT_BYTES)

    # The model was called all the same.
    assert (code(outcome), outcome.seconds) == ("invalid_output", 0.1)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\n{}",
        b'{"seconds":1.0}',
        b'{"seconds":1.0}\n',
        b'{"seconds":1.0}\nnull',
        b'{"seconds":-1.0}\n{"said":1}',
        b'{"seconds":1e999}\n{"said":1}',
        b'{"seconds":1.0}\n{"said":1e999}',
        b'{"seconds":1.0}\n{"said":NaN}',
        b'{"seconds":1.0}\n{"said":%b}' % (b"9" * 5000),
        b'{"seconds":1.0}\n{"said":1} 2',
        b'{"seconds":1.0}\n[1],[2]',
        b'{"seconds":1.0,"error":{}}',
    ],
)
def test_a_reply_that_makes_no_sense_fails_its_attempt(reply: bytes) -> None:
    outcome = judge(a_job("x", "free"), reply, MAX_RESULT_BYTES)

    assert code(outcome) == "invalid_output"


@pytest.mark.parametrize("model", ["Told", "FailsSetup"])
def test_a_worker_whose_runner_is_gone_ends_without_a_word(model: str) -> None:
    ours, theirs = socket.socketpair()
    inbox = Inbox()
    descriptors = [theirs.fileno(), inbox.exit.fileno()]
    worker = subprocess.Popen(
        [sys.executable, "-m", "jobrunner.worker", *map(str, descriptors)],
        pass_fds=descriptors,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    order = {"implementation": f"strange_models:{model}", "options": {}, "max_result_bytes": 100}
    with ours, theirs:
        ours.sendall(frames.encode(order))
    inbox.close()

    _, said = worker.communicate(timeout=15)

    assert said == b""


def test_an_empty_inbox_has_room_for_the_largest_message_and_for_a_hundred_small_ones() -> None:
    inbox = Inbox()
    text = "x" * (MAX_INPUTS - 100)

    assert inbox.put([a_job(text)])
    assert len(inbox.take_back()) == 1
    assert all(inbox.put([a_job("small")]) for _ in range(100))
    assert len(inbox.take_back()) == 100
    inbox.close()


@pytest.mark.parametrize(("characters", "ahead"), [(200, 400), (10_000, 200), (4_000_000, 1)])
def test_so_much_is_ahead_as_may_be_of_jobs_and_of_their_inputs(
    characters: int, ahead: int
) -> None:
    pace = Pace()
    job = a_job("well")
    job.input = "x" * characters

    pace.note(Outcome(job, 0.00001, "{}"))

    assert pace.ahead(1) == ahead


def test_the_message_says_how_a_worker_died(start: Start) -> None:
    workers = start(count=2)

    segfault, ended = run(workers, "segfault", "exit 3")

    assert segfault.failure
    assert segfault.failure.message == "the worker was killed by SIGSEGV"
    assert ended.failure
    assert ended.failure.message == "the worker exited with code 3"


def test_an_exception_can_say_that_there_is_no_use_in_a_retry(start: Start) -> None:
    workers = start(count=2)

    hopeless, usual = run(workers, "raise_hopeless", "raise x")

    assert hopeless.failure
    assert hopeless.failure.retryable is False
    assert usual.failure
    assert usual.failure.retryable is True


@pytest.mark.parametrize(
    "text",
    ["[" * 3000 + "]" * 3000, "1" * 5000, "1} 2"],
    ids=["nested deeply", "too many digits", "more than one"],
)
def test_an_input_that_no_worker_can_read_fails_once_and_for_all(start: Start, text: str) -> None:
    workers = start()
    job = Job(str(uuid4()), str(uuid4()), "sentiment", f'{{"text": {text}}}', 1)
    workers.give([job])

    [outcome] = settle(workers, lambda: not workers.jobs)

    assert outcome.failure
    assert (outcome.failure.code, outcome.failure.retryable) == ("invalid_input", False)
    assert workers.lost == 0


@pytest.mark.parametrize(
    "reply",
    [
        b'{"seconds":1.0}\n{"sentiment":"positive","confidence":0.5,"%b":1}' % (b"a\\u0000" * 1000),
        b'{"seconds":1.0}\n{"sentiment":"positive","confidence":0.5,"\\ud800":1}',
        b'{"seconds":1.0,"error":{"code":"model_error","message":"%b","retryable":true}}'
        % (b"\\u0000\xef\xbf\xbf" * 9000),
        b'{"seconds":1.0,"error":{"code":"%b","message":"x","retryable":true}}' % (b"x" * 9000),
    ],
)
def test_a_message_is_cut_and_cleaned_before_it_is_stored(reply: bytes) -> None:
    outcome = judge(a_job("x"), reply, MAX_RESULT_BYTES)

    assert outcome.failure
    stored = json.loads(outcome.failure.to_json())["message"]
    assert len(stored) <= 1000
    assert "\0" not in stored
    stored.encode()  # raises where it is no Unicode


@pytest.mark.parametrize("depth", [450, 900, 20_000])
@pytest.mark.parametrize("kind", ["list", "dict"])
def test_a_result_that_is_nested_deeply_costs_that_attempt_at_most(depth: int, kind: str) -> None:
    begin, end = (b"[", b"]") if kind == "list" else (b'{"in":', b"}")
    reply = b'{"seconds":1.0}\n' + begin * depth + b'"x"' + end * depth

    outcome = judge(a_job("x", "deep"), reply, 1_000_000)

    assert code(outcome) in (None, "invalid_output")


@pytest.mark.parametrize(
    ("text", "expected"), [("a\0b", "invalid_output"), ("\\\0", "invalid_output"),
                           ("a\\u0000b", None), ("\\\\u0000", None)],
)  # fmt: skip
def test_the_character_nul_is_refused_and_what_looks_like_it_is_not(
    text: str, expected: str | None
) -> None:
    outcome = judge(a_job("x", "other"), a_reply({text: text}), 10_000)

    assert code(outcome) == expected


def test_a_machine_that_can_start_no_process_is_tried_again_later(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    workers = start()
    with monkeypatch.context() as broken:
        broken.setattr("subprocess.Popen", refuse)
        [outcome] = run(workers, "exit 3")
        workers.tend()
    assert code(outcome) == "worker_lost"
    assert workers.ready == 0

    settle(workers, lambda: workers.ready == 1)


def test_what_a_model_prints_does_not_disturb_its_answer(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    workers = start()

    [outcome] = run(workers, "print")

    assert outcome.result
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "hello from a model" in printed.err


def test_a_model_that_forks_answers_all_the_same(start: Start) -> None:
    workers = start()

    first, second = run(workers, "fork") + run(workers, "well")

    assert first.result
    assert second.result


def test_what_a_dead_worker_has_started_ends_with_it(start: Start, tmp_path: Path) -> None:
    workers = start()
    file = tmp_path / "pid"

    [outcome] = run(workers, f"fork_and_die {file}")

    assert code(outcome) == "worker_lost"
    pid = int(file.read_text())
    wait_for(lambda: not runs(pid), "the model's child is gone")


def runs(pid: int) -> bool:
    """Whether a process lives; one that nobody has reaped does not."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_worker_knows_no_way_into_the_database(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://a:secret@b/c")
    monkeypatch.setenv("PGPASSWORD", "secret")
    workers = start(name="free")

    [outcome] = run(workers, "environment", model="free")

    assert outcome.result
    assert "secret" not in outcome.result


def test_other_models_may_answer_with_any_json(start: Start) -> None:
    workers = start(name="free")

    [outcome] = run(workers, "shape", model="free")

    assert outcome.result == '{"label": "positive"}'


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("FailsSetup", "OSError: the weights are missing"),
        ("DiesInSetup", "the worker exited with code 7"),
        ("SaysNoTimeout", "timeout_seconds should be a number of seconds over 0"),
        ("WithoutPredict", "has no method predict"),
        ("Missing", "has no attribute 'Missing'"),
    ],
)
def test_a_model_that_never_loads_is_an_error_that_says_why(
    start: Start, model: str, reason: str
) -> None:
    with pytest.raises(ModelLoadError, match=reason):
        start(model)


def test_a_model_that_loads_no_more_is_tried_again_later(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    monkeypatch.setenv("MARKER", str(marker))
    workers = start("SetsUpOnce")

    [outcome] = run(workers, "die")

    assert code(outcome) == "worker_lost"
    settle(workers, lambda: workers.lost >= 2)
    assert workers.ready == 0
    marker.unlink()
    settle(workers, lambda: workers.ready == 1)


def test_kill_jobs_ends_the_inferences_and_keeps_the_idle_workers(
    start: Start, tmp_path: Path
) -> None:
    workers = start(count=2)
    job = a_job(f"mark {tmp_path / 'begun'}")
    workers.give([job])
    wait_for((tmp_path / "begun").exists, "it has begun")

    killed, outcomes = workers.kill_jobs()

    assert (killed, outcomes) == ([job], [])
    assert workers.ready == 1
    assert settle(workers, lambda: workers.ready == 2) == []


def test_long_jobs_are_wanted_one_a_worker_and_short_ones_ahead(start: Start) -> None:
    workers = start(count=2)
    assert workers.room == 2

    run(workers, *["well"] * 20)
    ahead = workers.room
    run(workers, "sleep 0.3", "sleep 0.3")

    assert ahead > 20
    assert workers.room == 2


def test_no_more_is_wanted_until_half_of_what_is_ahead_is_done(start: Start) -> None:
    workers = start(count=1)
    run(workers, *["well"] * 20)
    room = workers.room

    workers.give([a_job("sleep 0.1"), *(a_job("well") for _ in range(room - 1))])

    assert workers.room == 0
    settle(workers, lambda: not workers.jobs)


def test_a_job_does_not_wait_behind_a_slow_neighbour(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLD_TIMEOUT_SECONDS", "600")
    workers = start(count=2)
    run(workers, *["well"] * 20)
    slow = a_job(f"mark {tmp_path / 'begun'}")
    workers.give([slow])
    wait_for((tmp_path / "begun").exists, "it has begun")
    others = [a_job("well") for _ in range(30)]
    workers.give(others)

    outcomes = settle(workers, lambda: workers.jobs == [slow])

    assert {outcome.job.id for outcome in outcomes} == {job.id for job in others}
    assert {code(outcome) for outcome in outcomes} == {None}


@pytest.mark.parametrize(("text", "expected"), [("exit 3", "worker_lost"), ("hang", "timeout")])
def test_a_worker_that_ends_costs_none_of_the_jobs_that_it_had_ahead(
    start: Start, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    if expected == "timeout":
        monkeypatch.setenv("TOLD_TIMEOUT_SECONDS", SHORT)
    workers = start(count=1)
    run(workers, *["well"] * 20)

    outcomes = run(workers, "well", text, *["well"] * 20)

    assert [code(outcome) for outcome in outcomes] == [None, expected, *[None] * 20]
    assert workers.lost == 1


def test_jobs_that_were_not_started_can_be_taken_away_without_harm(
    start: Start, tmp_path: Path
) -> None:
    workers = start(count=1)
    run(workers, *["well"] * 20)
    jobs = [a_job(f"mark {tmp_path / 'begun'}"), a_job("two"), a_job("three")]
    workers.give(jobs)
    wait_for((tmp_path / "begun").exists, "it has begun")

    assert workers.kill_jobs({jobs[1].id}) == ([jobs[1]], [])

    assert workers.ready == 1
    assert {job.id for job in workers.jobs} == {jobs[0].id, jobs[2].id}
    assert workers.kill_jobs({jobs[0].id}) == ([jobs[0]], [])
    [outcome] = settle(workers, lambda: not workers.jobs)
    assert (outcome.job.id, code(outcome)) == (jobs[2].id, None)


def test_a_cancel_of_a_job_that_is_done_does_not_hit_the_next_one(
    start: Start, tmp_path: Path
) -> None:
    workers = start(count=1)
    workers._pace.job_seconds = 0.001
    done, under_way = a_job("well"), a_job(f"mark {tmp_path / 'begun'}")
    workers.give([done, under_way])
    wait_for((tmp_path / "begun").exists, "the second has begun")

    killed, outcomes = workers.kill_jobs({done.id})

    assert killed == []
    assert [(outcome.job, code(outcome)) for outcome in outcomes] == [(done, None)]
    assert workers.jobs == [under_way]
    assert workers.ready == 1


def test_what_is_ahead_of_jobs_that_turn_slow_is_given_back(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = start(count=1)
    workers._pace.job_seconds = 0.001
    slow, *ahead = a_job(f"mark {tmp_path / 'begun'}"), *(a_job("well") for _ in range(30))
    given = monotonic()
    workers.give([slow, *ahead])
    wait_for((tmp_path / "begun").exists, "it has begun")
    with monkeypatch.context() as patience:
        patience.setattr("jobrunner.workers.SLOW_SECONDS", 3600.0)
        assert workers.surplus() == []

    back = wait_for(workers.surplus, "a second has gone by")
    assert monotonic() > given + 1

    assert set(back) == set(ahead)
    assert workers.jobs == [slow]
    # Else the next claim would take them again, to be given back again.
    assert workers.room == 0


def test_jobs_ahead_are_kept_while_their_worker_is_replaced(start: Start) -> None:
    workers = start(count=1)
    workers._pace.job_seconds = 0.001
    killer, *ahead = a_job("exit 3"), *(a_job("well") for _ in range(30))
    workers.give([killer, *ahead])

    outcomes = []
    while not outcomes:
        outcomes += workers.collect(readable(workers.pipes, 1))

    assert workers.surplus() == []
    settle(workers, lambda: not workers.jobs)


def test_jobs_are_given_back_while_no_worker_can_be_started(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The pause before the next try is not over meanwhile.
    monkeypatch.setattr("jobrunner.restarts.jittered", lambda _: 3600.0)
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    workers = start("SetsUpOnce")
    workers._pace.job_seconds = 0.001
    first, *ahead = (a_job("die") for _ in range(5))
    workers.give([first, *ahead])

    settle(workers, lambda: workers.trouble is not None)

    assert set(workers.surplus()) == set(ahead)
    assert workers.jobs == []


def test_a_job_that_can_be_given_to_nobody_holds_up_no_other(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    workers = start("Echo", count=1, name="echo")
    monkeypatch.setattr("jobrunner.inbox._file", no_space)

    large, small = run(workers, "x" * 100_000, "short", model="echo")

    assert code(large) == "worker_lost"
    assert "No space left" in str(large.failure)
    assert code(small) is None


def test_more_and_larger_inputs_than_a_socket_holds_all_arrive(start: Start) -> None:
    workers = start("Echo", count=2, name="echo")
    run(workers, *["short"] * 20, model="echo")
    texts = [f"{number} " + "x" * size for number, size in enumerate([10, 60_000, 700_000] * 20)]

    outcomes = run(workers, *texts, model="echo")

    lengths = [json.loads(outcome.result or "null")["length"] for outcome in outcomes]
    assert lengths == [len(text) for text in texts]
