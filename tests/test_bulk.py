"""`jobrunner submit`: a file of texts through the queue, and the results in the order given."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from crews import Crew
from helpers import Jobs, only_line
from jobrunner import registry
from jobrunner.bulk import collector, feed, submission
from jobrunner.bulk.batch import Batch, Item
from jobrunner.bulk.patience import PatientConnection
from jobrunner.cli import main
from jobrunner.errors import InputError
from jobrunner.worker_handle import ModelCard

BATCH = """
    select batch_position, model, input, priority, max_attempts
    from job
    order by batch_position
"""
FOLDER = Path()
AREAS = {
    "type": "object",
    "properties": {
        "area": {"type": "number"},
        "rooms": {"type": "array", "items": {"type": "integer", "minimum": 1}},
    },
    "required": ["area"],
}
GOOD_AREA = '{"input": {"area": 80, "rooms": [3], "text": "a flat"}}'


@pytest.fixture
def submit(web_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command with a login that may insert, here in this process and folder."""
    monkeypatch.chdir(tmp_path)

    def submit(*arguments: str, stdin: str | None = None, **changes: str) -> Result:
        env = {"DATABASE_URL": web_url, "JOBRUNNER_HOME": str(tmp_path)} | changes
        return CliRunner().invoke(
            main, ["submit", *arguments], env=env, input=stdin, prog_name="jobrunner"
        )

    return submit


@pytest.fixture
def crew(owner_url: str, jobs: Jobs) -> Iterator[Crew]:
    with Crew(owner_url) as crew:
        yield crew


def write(name: str, *lines: str) -> str:
    Path(name).write_text("".join(f"{line}\n" for line in lines))
    return name


def texts(count: int, *, name: str = "in.ndjson") -> str:
    return write(name, *[json.dumps({"id": n, "text": f"text {n}"}) for n in range(count)])


def register_areas(jobs: Jobs) -> None:
    """Let there be a model that says what it takes."""
    card: ModelCard = {
        "ready": True, "version": "1", "timeout_seconds": 60.0, "max_batch_size": 1,
        "max_wait_ms": 0.0, "input_schema": AREAS, "output_schema": None, "has_teardown": False,
    }  # fmt: skip
    registry.register_model(jobs.db, "areas", card)


def objects(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def records(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


# Without waiting.


def test_a_file_becomes_one_batch_in_its_order(submit: Callable[..., Result], jobs: Jobs) -> None:
    source = write(
        "in.jsonl", '{"text": "good"}', "", '{"id": 7, "text": "b\\u00e4d \\"x\\" \\\\"}'
    )

    result = submit(source, "--priority", "-5", "--json")

    said = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert (said["rows"], said["submitted"]) == (2, 2)
    assert jobs.db.execute(BATCH).fetchall() == [
        (0, "sentiment", {"text": "good"}, -5, 3),
        (1, "sentiment", {"text": 'bäd "x" \\'}, -5, 3),
    ]
    [[batch_id]] = jobs.db.execute("select distinct batch_id::text from job").fetchall()
    assert said["batch_id"] == batch_id
    assert [path.name for path in FOLDER.iterdir()] == ["in.jsonl"]


def test_the_batch_and_how_many_jobs_it_has_are_said(submit: Callable[..., Result]) -> None:
    result = submit(texts(3))

    assert result.stdout.startswith("Submitted 3 jobs as batch ")


def test_a_batch_may_be_longer_than_a_smallint_counts(
    submit: Callable[..., Result], jobs: Jobs
) -> None:
    assert submit(texts(33_000)).exit_code == 0

    counts = jobs.db.execute("select count(*), max(batch_position) from job").fetchone()
    assert counts == (33_000, 32_999)


def test_the_input_of_another_model_is_what_is_under_input(
    submit: Callable[..., Result], jobs: Jobs
) -> None:
    jobs.db.execute("insert into model (name) values ('adder')")
    source = write("in.ndjson", '{"id": 1, "input": {"a": [1, 2.5]}}', '{"text": "three"}')

    assert submit(source, "--model", "adder").exit_code == 0

    inputs = [(row[1], row[2]) for row in jobs.db.execute(BATCH)]
    assert inputs == [("adder", {"a": [1, 2.5]}), ("adder", {"text": "three"})]


def test_sleeping_runners_are_woken(submit: Callable[..., Result], jobs: Jobs) -> None:
    jobs.add_runner("crew")
    jobs.db.execute("update runner set sleeping = true")
    jobs.db.execute("listen job_submitted")

    submit(texts(2))

    assert len(list(jobs.db.notifies(timeout=5, stop_after=1))) == 1


# Waiting.


def test_ndjson_comes_back_in_order_with_all_that_it_held(
    submit: Callable[..., Result], crew: Crew
) -> None:
    lines = [f'{{"n": {n}.10, "text": "häppy {n}" , "more": [{{}}, null]}}' for n in range(2500)]

    result = submit(write("in.ndjson", *lines), "--output", "out.ndjson")

    written = Path("out.ndjson").read_text()
    assert (result.exit_code, result.stderr) == (0, "")
    assert '{"n": 7.10, "text": "häppy 7" , "more": [{}, null],"job_id":"' in written
    for n, row in enumerate(objects(written)):
        assert (row["n"], row["text"], row["more"]) == (n + 0.1, f"häppy {n}", [{}, None])
        assert (row["status"], row["error"]) == ("completed", None)
        assert row["result"] == {"sentiment": "positive", "confidence": 0.95}
        assert len(row["job_id"]) == 36
    assert len(objects(written)) == 2500
    assert sorted(path.name for path in FOLDER.iterdir()) == ["in.ndjson", "out.ndjson"]


def test_csv_comes_back_in_order_with_its_other_columns(
    submit: Callable[..., Result], crew: Crew, jobs: Jobs
) -> None:
    Path("in.csv").write_bytes(
        b"\xef\xbb\xbfid,review,note\r\n"
        b'1,"good, and\r\nlong","say ""hi"""\r\n'
        b"\r\n"
        b"2,fail,\r\n"
        b"3,last,x"
    )

    result = submit("in.csv", "--text-column", "review", "--output", "out.csv")

    rows = records(Path("out.csv").read_bytes().decode())
    assert result.exit_code == 1
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert (rows[0]["review"], rows[0]["note"]) == ("good, and\r\nlong", 'say "hi"')
    assert (rows[0]["status"], rows[0]["sentiment"]) == ("completed", "positive")
    assert (rows[0]["confidence"], rows[0]["error_code"]) == ("0.95", "")
    assert (rows[1]["status"], rows[1]["sentiment"]) == ("failed", "")
    assert (rows[1]["error_code"], rows[1]["error_message"]) == ("model_error", "it broke")
    [first, *_] = jobs.db.execute(BATCH).fetchall()
    assert first[2] == {"text": "good, and\r\nlong"}


def test_csv_of_another_model_has_the_whole_result(
    submit: Callable[..., Result], crew: Crew, jobs: Jobs
) -> None:
    jobs.db.execute("insert into model (name) values ('mine')")

    submit(write("in.csv", "text", "good"), "--model", "mine", "--output", "out.csv")

    [row] = records(Path("out.csv").read_text())
    assert json.loads(row["result"]) == {"sentiment": "positive", "confidence": 0.95}


def test_standard_input_and_output_serve_as_well(submit: Callable[..., Result], crew: Crew) -> None:
    result = submit(
        "-", "--format", "csv", "--output", "-", "--json", stdin="id,text\n1,good\n2,fine\n"
    )

    assert result.exit_code == 0
    assert [(row["id"], row["status"]) for row in records(result.stdout)] == [
        ("1", "completed"),
        ("2", "completed"),
    ]
    assert json.loads(result.stderr)["completed"] == 2


def test_wait_alone_writes_nothing_and_tells(submit: Callable[..., Result], crew: Crew) -> None:
    result = submit(texts(3), "--wait", "--json")

    said = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (said["completed"], said["failed"], said["invalid"]) == (3, 0, 0)
    assert [path.name for path in FOLDER.iterdir()] == ["in.ndjson"]


def test_what_did_not_go_well_is_in_its_row_and_counted_in_one_line(
    submit: Callable[..., Result], crew: Crew
) -> None:
    names = ["good", "fail", "cancel", "gone", "good"]

    result = submit(write("in.csv", "text", *names), "--output", "out.csv")

    codes = [row["error_code"] for row in records(Path("out.csv").read_text())]
    assert codes == ["", "model_error", "cancelled", "deleted", ""]
    assert "of 5 rows 3 failed and 0 are not valid" in only_line(result)


def test_a_file_without_rows_is_done_at_once(submit: Callable[..., Result], jobs: Jobs) -> None:
    assert submit(write("in.ndjson"), "--output", "out.ndjson").exit_code == 0
    assert submit(write("in.csv", "text"), "--output", "out.csv").exit_code == 0

    assert Path("out.ndjson").read_text() == ""
    assert Path("out.csv").read_text().startswith("text,job_id,status")


@pytest.mark.parametrize("name", ["out.ndjson", "out.csv"])
def test_an_output_can_be_submitted_again(
    submit: Callable[..., Result], crew: Crew, name: str
) -> None:
    source = texts(2) if name == "out.ndjson" else write("in.csv", "id,text", "0,good", "1,bad")
    submit(source, "--output", name)

    assert submit(name, "--output", f"again-{name}").exit_code == 0

    first, again = Path(name).read_text(), Path(f"again-{name}").read_text()
    read = objects if name == "out.ndjson" else records
    assert [[*row] for row in read(first)] == [[*row] for row in read(again)]
    assert [row["job_id"] for row in read(first)] != [row["job_id"] for row in read(again)]


def test_that_no_runner_serves_the_model_is_said_once(
    submit: Callable[..., Result],
    owner_url: str,
    jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(submission, "UNSERVED_SECONDS", -1)
    crew, pauses = Crew(owner_url), list[float]()

    def pause(seconds: float) -> None:
        # It has looked twice by then, with nothing done.
        pauses.append(seconds)
        if len(pauses) == 2:
            stack.enter_context(crew)

    monkeypatch.setattr(submission, "sleep", pause)
    with ExitStack() as stack:
        result = submit(texts(20), "--wait")

    assert result.exit_code == 0
    assert result.stderr.count("No runner serves sentiment: start one with `jobrunner start`") == 1


# What is not valid.

FAULTS = [
    ('{"text": ""}', "text should not be empty"),
    ('{"text": " \\n\\u3000"}', "text should not be white space only"),
    ('{"text": 7}', "text should be a string"),
    ('{"text": "a\\u0000b"}', "text should not contain the character NUL"),
    ('{"text": "\\ud800"}', "text should not contain an unpaired surrogate"),
    (json.dumps({"text": "x" * 10_001}), "text should have at most 10000 characters"),
    ('{"txt": "x"}', "text is required"),
    ("[1]", "should be an object"),
    ('{"text": "x"', "is not JSON: see column 13"),
    ('{"text": "x", "n": NaN}', "is not JSON: NaN and Infinity are not numbers there"),
    ('{"text": "x", "text": "y"}', "names a field of an object twice"),
    ('{"text": "x", "n": ' + "1" * 5000 + "}", "holds a number with too many digits"),
    ("[" * 100_000, "is nested too deeply"),
]


@pytest.mark.parametrize(("line", "fault"), FAULTS, ids=[fault for _, fault in FAULTS])
def test_a_row_that_is_not_valid_stops_all_with_its_place(
    line: str, fault: str, submit: Callable[..., Result], jobs: Jobs
) -> None:
    source = write("in.ndjson", '{"text": "good"}', "", line, '{"text": "good"}')

    error = only_line(submit(source, "--output", "out.ndjson"))

    assert error == f"in.ndjson, line 3: {fault}"
    assert jobs.count() == 0
    assert Path("out.ndjson").read_text() == ""
    assert not Path("out.ndjson.jobrunner").exists()


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (b"1,", "text should not be empty"),
        (b"1,a\0b", "text should not contain the character NUL"),
        (b"1", "has 1 columns where the header has 2"),
        (b"1,good,more", "has 3 columns where the header has 2"),
        (b"1,\xe4", "is not UTF-8"),
        (b'1,"good" x', "is not CSV: "),
        (b'1,"never ends', "is not CSV: "),
    ],
)
def test_a_record_that_is_not_valid_stops_all_with_its_place(
    row: bytes, fault: str, submit: Callable[..., Result], jobs: Jobs
) -> None:
    Path("in.csv").write_bytes(b'id,text\n0,"two\nlines"\n' + row + b"\n")

    assert only_line(submit("in.csv")).startswith(f"in.csv, line 4: {fault}")
    assert jobs.count() == 0


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"input": "x"}', "input should be an object"),
        ('{"input": {"a": ["\\u0000"]}}', "input should not contain the character NUL"),
        ('{"input": {"\\udfff": 1}}', "input should not contain an unpaired surrogate"),
        ('{"input": {"a": 1e999}}', "input holds a number that is too large"),
        ('{"input": {"a": ' + "[" * 200 + "]" * 200 + "}}", "input is nested too deeply"),
    ],
)
def test_an_input_that_the_database_can_not_hold_is_found_before(
    line: str, fault: str, submit: Callable[..., Result], jobs: Jobs
) -> None:
    jobs.db.execute("insert into model (name) values ('mine')")

    error = only_line(submit(write("in.ndjson", line), "--model", "mine"))

    assert error == f"in.ndjson, line 1: {fault}"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"input": {"rooms": 3}}', "input/area is required"),
        (
            '{"input": {"area": 80, "rooms": [3, 0]}}',
            "input/rooms/1 breaks the rule minimum of the model's schema",
        ),
        ('{"text": "80"}', "input/area is required"),
        ('{"area": 80}', "input or text is required"),
    ],
)
def test_an_input_that_the_model_does_not_take_is_found_before(
    line: str, fault: str, submit: Callable[..., Result], jobs: Jobs
) -> None:
    register_areas(jobs)

    error = only_line(submit(write("in.ndjson", GOOD_AREA, line), "--model", "areas"))

    assert error == f"in.ndjson, line 2: {fault}"
    assert jobs.count() == 0


def test_an_odd_schema_checks_nothing(submit: Callable[..., Result], jobs: Jobs) -> None:
    register_areas(jobs)
    jobs.db.execute("update model_version set input_schema = '{\"type\": 7}'")

    assert submit(write("in.ndjson", '{"input": {}}'), "--model", "areas").exit_code == 0


def test_a_csv_of_a_model_that_takes_no_text_says_what_to_write(
    submit: Callable[..., Result], jobs: Jobs
) -> None:
    register_areas(jobs)

    error = only_line(submit(write("in.csv", "area,rooms", "80,3"), "--model", "areas"))

    assert error.endswith("see --text-column, or write other inputs as NDJSON")


@pytest.mark.usefixtures("crew")
def test_inputs_that_the_model_does_not_take_can_be_skipped(
    submit: Callable[..., Result], jobs: Jobs
) -> None:
    register_areas(jobs)
    source = write("in.ndjson", GOOD_AREA, '{"input": {}}', GOOD_AREA)

    submit(source, "--model", "areas", "--output", "out.ndjson", "--skip-invalid")

    rows = objects(Path("out.ndjson").read_text())
    assert [row["status"] for row in rows] == ["completed", "failed", "completed"]
    assert rows[1]["error"]["message"] == "line 2: input/area is required"


def test_rows_that_are_not_valid_can_be_skipped(
    submit: Callable[..., Result], crew: Crew, jobs: Jobs
) -> None:
    lines = ['{"id": 1, "text": ""}', '{"text": "good"}', "nonsense", '{"text": "good"}', "{}"]

    result = submit(write("in.ndjson", *lines), "--output", "out.ndjson", "--skip-invalid")

    rows = objects(Path("out.ndjson").read_text())
    assert [row["status"] for row in rows] == [
        "failed", "completed", "failed", "completed", "failed",
    ]  # fmt: skip
    assert rows[0] == {
        "id": 1, "text": "", "job_id": None, "status": "failed", "result": None,
        "error": {
            "code": "invalid_input", "message": "line 1: text should not be empty",
            "retryable": False,
        },
    }  # fmt: skip
    assert rows[2]["error"]["message"] == "line 3: is not JSON: see column 1"
    assert jobs.count() == 2
    assert "of 5 rows 0 failed and 3 are not valid" in only_line(result)


def test_records_that_are_not_valid_can_be_skipped(
    submit: Callable[..., Result], crew: Crew
) -> None:
    Path("in.csv").write_bytes(b"id,text\n1,\n2,good\n3,\xe4\n4\n")

    submit("in.csv", "--output", "out.csv", "--skip-invalid")

    rows = records(Path("out.csv").read_bytes().decode())
    assert [(row["id"], row["text"], row["error_code"]) for row in rows] == [
        ("1", "", "invalid_input"),
        ("2", "good", ""),
        ("3", "\ufffd", "invalid_input"),
        ("4", "", "invalid_input"),
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "begins with no header: it should name the columns"),
        (b"\n", "begins with no header: it should name the columns"),
        (b"id;txt\n1;x\n", "has no column text, but id;txt: see --text-column"),
        (b"text,text\nx,y\n", "names a column twice in its header"),
        (b"\xff\xfet\0e\0x\0t\0\n\0", "line 1: is not UTF-8"),
        (b'"text\n', "line 1: is not CSV: "),
        (b"text\n" + b"x" * 1_100_000, "line 2: is longer than 1 MiB"),
    ],
)
def test_a_csv_that_can_not_be_read_is_one_line(
    content: bytes, fault: str, submit: Callable[..., Result]
) -> None:
    Path("in.csv").write_bytes(content)

    error = only_line(submit("in.csv"))

    assert error.startswith("in.csv")
    assert fault in error


def test_the_database_names_the_rows_that_it_refuses(web_url: str, jobs: Jobs) -> None:
    connection = PatientConnection(web_url, print)
    batch = Batch(connection, uuid4(), "sentiment", 0)

    with pytest.raises(InputError, match="refuses one of the rows 4 to 5: "):
        batch.insert([Item(3, "{}"), Item(4, '{"a": "\\u0000"}')])

    connection.close()


# Wrong use.


def test_a_model_that_nobody_has_registered_is_refused(
    submit: Callable[..., Result], jobs: Jobs
) -> None:
    jobs.db.execute("insert into model (name) values ('adder')")

    error = only_line(submit(texts(1), "--model", "subtracter"))

    assert error.startswith("no model subtracter is registered, there are adder, sentiment:")


def test_the_format_must_be_clear(submit: Callable[..., Result]) -> None:
    assert "give --format csv or ndjson" in only_line(submit("-"), 2)
    assert "give --format csv or ndjson" in only_line(submit(write("in.txt")), 2)


def test_the_output_is_of_the_format_of_the_input(submit: Callable[..., Result]) -> None:
    error = only_line(submit(texts(1), "--output", "out.csv"), 2)

    assert "the output is ndjson, like FILE: name OUT so" in error


def test_to_skip_rows_there_must_be_an_output(submit: Callable[..., Result]) -> None:
    assert "--skip-invalid needs --output" in only_line(submit(texts(1), "--skip-invalid"), 2)


def test_an_output_that_is_there_already_is_not_written_over(
    submit: Callable[..., Result], jobs: Jobs
) -> None:
    write("out.ndjson", "precious")

    error = only_line(submit(texts(1), "--output", "out.ndjson"))

    assert error == "out.ndjson is there already: remove it, or name another output"
    assert Path("out.ndjson").read_text() == "precious\n"
    assert jobs.count() == 0


def test_a_runner_s_login_may_not_submit(submit: Callable[..., Result], runner_url: str) -> None:
    error = only_line(submit(texts(1), DATABASE_URL=runner_url))

    assert "run `grant job_web to <login>`" in error


# Once, and in memory that is bounded.


def test_a_chunk_whose_answer_was_lost_is_not_inserted_again(web_url: str, jobs: Jobs) -> None:
    connection = PatientConnection(web_url, print)
    batch = Batch(connection, uuid4(), "sentiment", 0)
    items = [Item(position, '{"text": "x"}') for position in range(10)]

    assert batch.insert(items[3:6]) == 5
    assert batch.insert(items[3:6]) == 5
    assert batch.insert(items[3:]) == 9

    connection.close()
    positions = jobs.db.execute("select batch_position from job order by 1").fetchall()
    assert positions == [(n,) for n in range(3, 10)]


def test_no_more_is_submitted_than_the_window_holds(
    submit: Callable[..., Result],
    owner_url: str,
    jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "CHUNK_ROWS", 10)
    monkeypatch.setattr(collector, "WINDOW_ROWS", 50)
    seen: list[int] = []
    collect = collector.Collector.collect

    def count(self: collector.Collector) -> bool:
        seen.append(self.waiting)
        return collect(self)

    monkeypatch.setattr(collector.Collector, "collect", count)

    with Crew(owner_url):
        assert submit(texts(500), "--output", "out.ndjson").exit_code == 0

    assert max(seen) <= 50
    assert len(objects(Path("out.ndjson").read_text())) == 500
