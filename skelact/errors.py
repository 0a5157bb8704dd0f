"""The one exception that skelact raises for bad input."""

from __future__ import annotations

import re


class SkelactError(Exception):
    """Bad input, told in one line: what was expected, what was found and what to do.

    The command line prints the message and exits with 1; a traceback only with ``--debug``.
    """


_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")  # but tabs


def harmless(text: str) -> str:
    """The same line, with escapes for what would command a terminal or end it: names in files come from strangers."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
