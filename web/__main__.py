"""The web by itself: ``python -P -m web``, which takes gunicorn's options.

As ``gunicorn -c python:web.gunicorn_config 'web:create_app()'``, but that gunicorn looks for
modules in the current folder first, where a ``web.py`` may be somebody's own.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from gunicorn.app.wsgiapp import WSGIApplication  # type: ignore[import-untyped]

CONFIG = "python:web.gunicorn_config"
APP = "web:create_app()"


class Web(WSGIApplication):  # type: ignore[misc]
    """gunicorn, with our configuration, which stays where it is."""

    def init(self, parser: ArgumentParser, opts: Namespace, args: Sequence[str]) -> None:
        opts.config = opts.config or CONFIG
        super().init(parser, opts, args or [APP])

    def chdir(self) -> None:
        """Go nowhere: gunicorn would make the current folder the first to import from."""


def main() -> None:
    """Serve until a signal comes."""
    Web("%(prog)s [OPTIONS]", prog="python -P -m web").run()


if __name__ == "__main__":
    main()
