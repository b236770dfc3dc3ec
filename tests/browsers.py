"""What the tests in a browser have in common; its fixtures are in conftest.py."""

from playwright.sync_api import Page


def watched(page: Page) -> tuple[list[str], list[str]]:
    """The addresses that the page asks for, and what its console complains of."""
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: said.append(line.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    return asked, said
