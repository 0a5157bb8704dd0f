"""The one exception that skelact raises for bad input."""

from __future__ import annotations

import re


class SkelactError(Exception):
    """Bad input, told in one line: what was expected, what was found and what to do.

    The command line prints the message and exits with 1; a traceback only with ``--debug``.
    """


_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # but tabs and line breaks


def harmless(text: str) -> str:
    """The same text, with escapes for characters that would command a terminal: names in files come from strangers."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
