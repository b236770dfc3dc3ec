"""`jobrunner train`: a model from a CSV file, an honest report, and errors of one line."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("sklearn", reason="the extra sklearn is not installed")

import joblib

from examples import sentences, write_csv
from helpers import Jobs
from jobrunner import training
from jobrunner.bar import Bar
from jobrunner.cli import main
from jobrunner.errors import ModelLoadError
from jobrunner.models import load
from processes import System, environment, system
from terminal import Terminal

Train = Callable[..., Result]

HELD_OUT_AND_NEW = [
    ("What a wonderful, delightful evening!", "positive"),
    ("excellent", "positive"),
    ("A beautiful place and friendly people", "positive"),
    ("I was told it is great, and it is great.", "positive"),
    ("PERFECT!!!", "positive"),
    ("It looks lovely in the garden", "positive"),
    ("What an awful, dreadful evening!", "negative"),
    ("useless", "negative"),
    ("An ugly place and rude people", "negative"),
    ("It came broken, and the answer was disappointing.", "negative"),
    ("HORRIBLE!!!", "negative"),
    ("It looks terrible in the garden", "negative"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file of 400 sentences."""
    return write_csv(tmp_path_factory.mktemp("examples") / "sentiment.csv", sentences(400))


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Runs the command on a file; the model goes to model.joblib."""

    def train(file: Path, *arguments: str) -> Result:
        command = ["train", str(file), "--output", str(tmp_path / "model.joblib"), *arguments]
        return CliRunner().invoke(main, command, prog_name="jobrunner")

    return train


@pytest.fixture(scope="module")
def saved(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model."""
    output = tmp_path_factory.mktemp("model") / "model.joblib"
    result = CliRunner().invoke(main, ["train", str(file), "--output", str(output)])
    assert result.exit_code == 0, result.output
    return output


@pytest.fixture(scope="module")
def model(saved: Path) -> Any:
    return set_up(saved)


def set_up(saved: Path) -> Any:
    model = load(f"sklearn:{saved}", {})
    model.setup()
    return model


def only_line(result: Result, folder: Path) -> str:
    """The error: one line, and no file is left."""
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert not list(folder.glob("model.joblib*"))
    return result.stderr.removeprefix("Error: ").strip()


# What is learned.


@pytest.mark.parametrize(("text", "sentiment"), HELD_OUT_AND_NEW)
def test_a_sentence_that_it_has_not_seen_is_judged_by_its_words(
    model: Any, text: str, sentiment: str
) -> None:
    answer = model.predict({"text": text})

    assert answer["sentiment"] == sentiment
    assert 0.5 < answer["confidence"] <= 1


@pytest.mark.parametrize(
    "text", ["", " ", "🙂", "x" * 10_000, "good " * 2000, "これは素晴らしい", "\n.\n"]
)
def test_any_text_has_an_answer(model: Any, text: str) -> None:
    answer = model.predict({"text": text})

    assert answer.keys() == {"sentiment", "confidence"}
    assert 0.5 <= answer["confidence"] <= 1


def test_a_batch_has_the_answers_that_its_texts_have_alone(model: Any) -> None:
    items = [{"text": text} for text, _ in HELD_OUT_AND_NEW]

    assert model.predict_batch(items) == [model.predict(item) for item in items]


def test_the_same_examples_give_the_same_model(
    file: Path, model: Any, train: Train, tmp_path: Path
) -> None:
    assert train(file).exit_code == 0
    again = set_up(tmp_path / "model.joblib")

    items = [{"text": text} for text, _ in HELD_OUT_AND_NEW]
    assert again.predict_batch(items) == model.predict_batch(items)


# The report.


def test_the_report_tells_how_well_it_does_on_what_was_held_out(file: Path, train: Train) -> None:
    result = train(file, "--json")

    report = json.loads(result.stdout)
    assert (report["trained_on"], report["tested_on"]) == (320, 80)
    assert (report["positive"], report["negative"]) == (200, 200)
    assert report["accuracy_by_chance"] == 0.5
    assert report["accuracy"] > 0.95
    assert min(report["f1_positive"], report["f1_negative"]) > 0.95
    assert report["brier_score"] < 0.05
    assert report["log_loss"] < 0.2
    assert 0.8 < report["mean_confidence"] <= 1


def test_the_report_can_be_read_and_says_how_to_serve_the_model(
    file: Path, train: Train, tmp_path: Path
) -> None:
    lines = train(file).stdout.splitlines()

    assert lines[0].split() == ["trained_on", "320"]
    assert any(line.startswith("accuracy ") for line in lines)
    assert lines[-1] == (
        f"Serve it: jobrunner start --model sentiment=sklearn:{tmp_path / 'model.joblib'}"
    )


def test_labels_that_are_noise_are_not_learned_and_the_report_says_so(
    train: Train, tmp_path: Path
) -> None:
    rows = [(text, "positive" if n % 3 else "negative")
            for n, (text, _) in enumerate(sentences(300))]  # fmt: skip

    report = json.loads(train(write_csv(tmp_path / "noise.csv", rows), "--json").stdout)

    assert report["accuracy"] < 0.8
    assert report["mean_confidence"] < 0.8
    assert 0.15 < report["brier_score"] < 0.3


def test_what_stands_twice_and_what_has_no_text_is_counted_and_left_out(
    train: Train, tmp_path: Path
) -> None:
    rows = sentences(40)
    rows += [*rows[:7], (" ", "positive"), ("", "negative")]

    report = json.loads(train(write_csv(tmp_path / "twice.csv", rows), "--json").stdout)

    assert (report["repeated"], report["empty"]) == (7, 2)
    assert report["trained_on"] + report["tested_on"] == 40


# Files as they come.


def test_columns_may_have_other_names_and_labels_other_letters(
    train: Train, tmp_path: Path
) -> None:
    rows = [(label.upper() + " ", text) for text, label in sentences(40)]
    file = write_csv(tmp_path / "reviews.csv", rows, ("stars", "review"))

    result = train(file, "--text-column", "review", "--label-column", "stars")

    assert result.exit_code == 0


def test_a_file_from_a_spreadsheet_is_read(train: Train, tmp_path: Path) -> None:
    lines = ["text,sentiment", *(f'"{text}, ""so"",\n it is.",{label}'
                                 for text, label in sentences(40)), ""]  # fmt: skip
    (tmp_path / "sheet.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())

    assert train(tmp_path / "sheet.csv").exit_code == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "bad.csv is empty"),
        (b"text,sentiment\n", "bad.csv has 0 different positive texts: at least 10 are needed"),
        (b"text;sentiment\na;b\n", "bad.csv has no column text, only 'text;sentiment'"),
        (b"text,label\na,b\n", "bad.csv has no column sentiment, only 'text', 'label'"),
        (b"text,sentiment\nfine,positive\nso so,neutral\n",
         "bad.csv, line 3: 'neutral' is neither positive nor negative"),
        (b"text,sentiment\nfine,\n", "bad.csv, line 2: '' is neither positive nor negative"),
        (b"text,sentiment\n\nfine\n", "bad.csv, line 3: 1 cells under 2 columns"),
        (b"text,sentiment\na,b,positive\n", "bad.csv, line 2: 3 cells under 2 columns"),
        (b'text,sentiment\n"open,positive\n', "bad.csv, line 2: unexpected end of data"),
        (b"text,sentiment\ncaf\xe9,positive\n", "bad.csv is not UTF-8: save it as CSV UTF-8"),
        ("text,sentiment\nfine,positive\n".encode("utf-16"), "is not UTF-8"),
        (b"text,sentiment\n" + b"fine,positive\n" * 50, "has 1 different positive texts"),
        (b"text,sentiment\n" + b"".join(b"fine %d,positive\n" % n for n in range(50)),
         "has 0 different negative texts"),
        (b"text,sentiment\nfine," + b"x" * 99 + b"\n", "'" + "x" * 30 + "…' is neither"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_in_one_line(
    content: bytes, said: str, train: Train, tmp_path: Path
) -> None:
    file = tmp_path / "bad.csv"
    file.write_bytes(content)

    assert said in only_line(train(file), tmp_path)


def test_what_is_no_file_is_not_replaced_by_one(train: Train, file: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    said = only_line(train(file, "--output", str(tmp_path / "pipe")), tmp_path)

    assert said == f"{tmp_path / 'pipe'} is no file: name one"
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_that_is_not_there_is_named(train: Train, tmp_path: Path) -> None:
    said = only_line(train(tmp_path / "none.csv"), tmp_path)

    assert said == f"{tmp_path / 'none.csv'}: No such file or directory"


@pytest.mark.parametrize(
    ("output", "said"), [(".", "is a folder: name a file in it"), ("no/m", "No such file")]
)
def test_an_output_that_can_not_be_written_is_refused_before_the_training(
    output: str, said: str, file: Path, train: Train, tmp_path: Path
) -> None:
    result = train(file, "--output", str(tmp_path / output))

    assert said in only_line(result, tmp_path)


def test_a_model_is_replaced_as_a_whole_or_stays(file: Path, train: Train, tmp_path: Path) -> None:
    model = tmp_path / "model.joblib"
    model.write_text("the old one")
    (tmp_path / "bad.csv").write_text("text,sentiment\n")

    assert train(tmp_path / "bad.csv").exit_code == 1
    assert model.read_text() == "the old one"
    assert train(file).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "model.joblib"]
    set_up(model)


def test_without_an_output_the_usage_is_wrong(file: Path) -> None:
    result = CliRunner().invoke(main, ["train", str(file)], prog_name="jobrunner")

    assert result.exit_code == 2
    assert "--output" in result.stderr


def test_without_scikit_learn_it_says_what_to_install(
    file: Path, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)

    assert only_line(train(file), tmp_path) == (
        "scikit-learn is not here: install jobrunner[sklearn]"
    )


@pytest.mark.process
def test_a_terminal_is_told_what_is_being_done_and_how_far_it_is(
    file: Path, tmp_path: Path
) -> None:
    arguments = ["train", str(file), "--output", str(tmp_path / "m")]
    with Terminal(*arguments, env=os.environ, columns=120) as terminal:
        assert terminal.end() == 0

        said = terminal.text
    told = ["reading", "training on 320 examples", "Training ", "/1,920", "testing", "writing"]
    assert [said.find(each) for each in told] == sorted(said.find(each) for each in told)
    assert all(each in said for each in told)


def test_each_reading_of_a_text_is_a_step_and_none_is_left(file: Path, tmp_path: Path) -> None:
    bar = Steps()

    training.train(file, "text", "sentiment", tmp_path / "m", lambda _: None, bar)

    assert (bar.total, bar.steps) == (6 * 320, 6 * 320)
    # What is served later counts nothing.
    set_up(tmp_path / "m").predict({"text": "It is GREAT."})
    assert bar.steps == 6 * 320


class Steps(Bar):
    """Counts the steps."""

    def __init__(self) -> None:
        super().__init__(io.StringIO(), "Training")
        self.total: int | None = None
        self.steps = 0

    def begin(self, total: int | None, done_before: int = 0) -> None:
        self.total = total

    def step(self) -> None:
        self.steps += 1


def test_who_is_no_terminal_is_told_the_result_only(file: Path, train: Train) -> None:
    assert train(file).stderr == ""


# The file.


def with_head(saved: Path, file: Path, **changes: str) -> Path:
    head, _, rest = saved.read_bytes().partition(b"\n")
    file.write_bytes(json.dumps(json.loads(head) | changes).encode() + b"\n" + rest)
    return file


def test_its_version_is_that_of_the_file(saved: Path, model: Any, tmp_path: Path) -> None:
    other = set_up(with_head(saved, tmp_path / "other", note="another file"))

    assert len(model.version) == 12
    assert model.version == set_up(saved).version
    assert other.version != model.version


def test_a_file_of_another_scikit_learn_is_refused(saved: Path, tmp_path: Path) -> None:
    old = with_head(saved, tmp_path / "old.joblib", sklearn="0.24.1")

    with pytest.raises(
        ModelLoadError, match="was made by scikit-learn 0.24.1, here is 1"
    ) as caught:
        set_up(old)

    assert "train it again" in str(caught.value)


def test_a_file_of_another_patch_of_it_is_read(saved: Path, tmp_path: Path) -> None:
    head = json.loads(saved.read_bytes().split(b"\n")[0])
    minor = ".".join(head["sklearn"].split(".")[:2])

    set_up(with_head(saved, tmp_path / "patched.joblib", sklearn=f"{minor}.99"))


class Bomb:
    """Leaves a sign where it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> Any:
        return Path.touch, (self.sign,)


def test_a_pickle_that_is_not_ours_is_refused_unread(tmp_path: Path) -> None:
    joblib.dump(Bomb(tmp_path / "sign"), tmp_path / "foreign.joblib")

    with pytest.raises(ModelLoadError, match="was not made by `jobrunner train`"):
        set_up(tmp_path / "foreign.joblib")

    assert not (tmp_path / "sign").exists()


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[]\n", b"null", b"7\n", b'{"format": "x"}\n'])
def test_a_file_that_is_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(content)

    with pytest.raises(ModelLoadError, match="was not made by `jobrunner train`"):
        set_up(tmp_path / "other")


def test_a_file_that_was_cut_off_is_refused(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(saved.read_bytes()[:-200])

    with pytest.raises(ModelLoadError, match="cut is damaged"):
        set_up(tmp_path / "cut")


def test_a_file_that_is_not_there_can_not_be_served(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="none: No such file or directory"):
        set_up(tmp_path / "none")


def test_a_name_without_a_file_says_what_is_wanted() -> None:
    for implementation in ("sklearn", "sklearn:"):
        with pytest.raises(
            ModelLoadError, match="sklearn wants the path of its model: sklearn:PATH"
        ):
            load(implementation, {})


# In a runner.


@pytest.fixture
def processes(runner_url: str, tmp_path: Path) -> Iterator[System]:
    with system(runner_url, tmp_path) as processes:
        yield processes


@pytest.mark.process
def test_a_runner_serves_what_was_trained(saved: Path, jobs: Jobs, processes: System) -> None:
    good, bad = jobs.add("What a wonderful, delightful evening!"), jobs.add("Awful and rude.")

    processes.runner("--workers", "1", "--model", f"sentiment=sklearn:{saved}")

    assert jobs.wait(good, "completed")["result"]["sentiment"] == "positive"
    assert jobs.wait(bad, "completed")["result"]["sentiment"] == "negative"


@pytest.mark.process
def test_a_runner_whose_file_is_no_model_ends_with_one_line(
    runner_url: str, file: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobrunner", "start", "--workers", "1",
         "--model", f"sentiment=sklearn:{file}"],
        env=environment(runner_url), capture_output=True, text=True,
        check=False, timeout=30,
    )  # fmt: skip

    assert done.returncode == 1
    assert "was not made by `jobrunner train`" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
