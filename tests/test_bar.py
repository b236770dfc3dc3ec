"""The bar of a long command: drawn on a terminal; for everybody else there are the notes."""

import io

from jobrunner.bar import Bar


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_how_far_it_is() -> None:
    screen = Screen()

    with Bar(screen, "Submitting") as bar:
        bar.begin(200, 0)
        bar.show(50, "3 failed")
        bar.note("Look at [this].")

    assert "Submitting" in screen.getvalue()
    assert "50/200" in screen.getvalue()
    assert "3 failed" in screen.getvalue()
    assert "Look at [this].\n" in screen.getvalue()


def test_a_terminal_sees_how_many_came_so_far_through_a_pipe() -> None:
    screen = Screen()

    with Bar(screen, "Submitting") as bar:
        bar.show(50)

    assert "50" in screen.getvalue()
    assert "50/" not in screen.getvalue()


def test_who_is_no_terminal_sees_notes_only() -> None:
    screen = io.StringIO()

    with Bar(screen, "Submitting") as bar:
        bar.show(50, "3 failed")
        bar.note("Look.")

    assert screen.getvalue() == "Look.\n"


def test_more_than_was_counted_is_no_more_than_all() -> None:
    screen = Screen()

    with Bar(screen, "Deleting") as bar:
        bar.begin(3)
        bar.show(5)

    assert "5/5" in screen.getvalue()
