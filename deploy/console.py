"""What is said on the terminal and in a log, without the API key and secrets, whoever put them into a text.

A terminal gets colour and a spinner; a log gets plain lines, and of a wait only what changed.
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console as RichConsole
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from deploy.errors import ApiError


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LOG_WIDTH: Final = 160
UNCHANGED: Final = "nothing was changed"
MIN_HIDDEN_CHARS: Final = 4  # what is shorter is no secret, and would tear words apart


class Console:
    """Prints lines and the progress of a wait; *state* is what Ctrl-C or an error leaves behind."""

    def __init__(self) -> None:
        self._out = _rich(sys.stdout)
        self._err = _rich(sys.stderr)
        self._hidden: list[str] = []
        self.state = UNCHANGED

    @property
    def is_terminal(self) -> bool:
        """Whether somebody can be asked."""
        return sys.stdin.isatty() and self._out.is_terminal

    def hide(self, secrets: Iterable[str]) -> None:
        """Never show any of *secrets*, nor a part of one that commas or a colon divide."""
        for secret in secrets:
            parts = [part for pair in secret.split(",") for part in (pair, pair.partition(":")[2])]
            for part in {secret, *parts}:
                clean = part.strip()
                if len(clean) >= MIN_HIDDEN_CHARS:
                    self._hidden += {clean, json.dumps(clean)[1:-1]}
        self._hidden.sort(key=len, reverse=True)

    def clean(self, text: str) -> str:
        """Return *text* with `(secret)` for each of what is hidden."""
        for secret in self._hidden:
            text = text.replace(secret, "(secret)")
        return text

    def say(self, text: str = "", *, style: str = "") -> None:
        """Print a line."""
        self._out.print(Text(self.clean(text), style=style), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a line of what does not stop the command but should be known."""
        self.say(f"! {text}", style="yellow")

    def note(self, text: str) -> None:
        """Print a line on stderr, which is no part of what the command answers."""
        self._err.print(Text(self.clean(text)), soft_wrap=True)

    def tick(self, text: str, *, passed: bool | None) -> None:
        """Print a check: passed, failed, or neither."""
        mark, style = {True: ("✓", "green"), False: ("✗", "red"), None: ("-", "")}[passed]
        self.say(f"{mark} {text}", style=style)

    def error(self, text: str) -> None:
        """Print on stderr why the command ends."""
        self.note(text)

    def ask(self, question: str) -> bool:
        """Return whether the answer is yes; anything else, and no answer, is no."""
        return self.ask_for(f"{question} [y/N] ").casefold() in {"y", "yes"}

    def ask_for(self, question: str) -> str:
        """Return what is typed."""
        try:
            return input(self.clean(question)).strip()
        except EOFError:
            return ""

    @contextmanager
    def changing(self, maybe: str) -> Iterator[Callable[[str], None]]:
        """Let *state* say what a request may have done while it is sent; what is yielded says what it did."""
        before = self.state
        done = "" if before == UNCHANGED else f"{before}; "

        def did(what: str) -> None:
            self.state = done + what

        did(f"{maybe}: run the command again to see")
        try:
            yield did
        except ApiError as refused:
            if refused.is_refusal:
                self.state = before
            raise

    @contextmanager
    def waiting(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show that something is waited for; what is yielded changes the line."""
        if self._out.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            with Progress(*columns, console=self._out, transient=True) as progress:
                task = progress.add_task(self.clean(text))
                yield lambda now: progress.update(task, description=self.clean(now))
            return
        said: list[str] = []

        def tell(now: str) -> None:
            if now not in said[-1:]:
                said.append(now)
                self.say(f"… {now}")

        tell(text)
        yield tell


def _rich(stream: object) -> RichConsole:
    is_terminal = bool(getattr(stream, "isatty", lambda: False)())
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # a log that takes no tick must not end a deployment
    return RichConsole(
        file=stream,  # type: ignore[arg-type]
        width=None if is_terminal else LOG_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=is_terminal,
    )
