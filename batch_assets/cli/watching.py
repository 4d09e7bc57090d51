"""Show something again and again until Ctrl-C: in a terminal in place of what was there."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence

import click

# Seconds between two looks. After a look that took long, the pause is longer than it by this factor.
_PAUSE, _PAUSE_FACTOR = 2.0, 10.0
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_COLOR = re.compile(r"(\x1b\[[\d;]*m)")
_NEW_SCREEN, _OLD_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def watch(look: Callable[[], Sequence[str]]) -> None:
    """Show lines again and again. Ctrl-C ends it, and leaves the last ones on the screen.

    In a pipe, each look is written after the one before, with an empty line between two that have several lines.

    Args:
        look: Returns the lines.
    """
    is_terminal = sys.stdout.isatty()
    lines: Sequence[str] = ()
    if is_terminal:
        click.echo(_NEW_SCREEN, nl=False)
    try:
        while True:
            began = time.monotonic()
            lines = look()
            took = time.monotonic() - began
            if is_terminal:
                click.echo(_screen(lines), nl=False)
            else:
                click.echo("\n".join([*lines, ""] if len(lines) > 1 else lines))
            sys.stdout.flush()
            time.sleep(max(_PAUSE, _PAUSE_FACTOR * took))
    except KeyboardInterrupt:
        pass
    finally:
        if is_terminal:
            click.echo(_OLD_SCREEN, nl=False)
            click.echo("\n".join(lines))


def _screen(lines: Sequence[str]) -> str:
    """Return the lines for a whole screen. Those that do not fit are counted."""
    width, height = shutil.get_terminal_size()
    shown = list(lines)
    if len(shown) > height - 1:
        shown = [*shown[: height - 2], f"… and {len(shown) - height + 2:,} more lines; Ctrl-C shows them"]
    return _HOME + "\n".join(cut(line, width) + _CLEAR_LINE for line in shown) + _CLEAR_BELOW


def cut(line: str, width: int) -> str:
    """Cut a line to the width of the terminal. Colors take no place in it, and end with the line.

    Args:
        line: The line.
        width: The number of characters that fit.
    """
    if len(_COLOR.sub("", line)) <= width:
        return line
    kept, left = "", width - 1
    for position, part in enumerate(_COLOR.split(line)):  # each second part is a color
        is_color = position % 2 == 1
        kept += part if is_color else part[:left]
        left -= 0 if is_color else min(left, len(part))
    return f"{kept}…"
