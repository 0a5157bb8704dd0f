"""The one exception that skelact raises for bad input."""

from __future__ import annotations


class SkelactError(Exception):
    """Bad input, told in one line: what was expected, what was found and what to do.

    The command line prints the message and exits with 1; a traceback only with ``--debug``.
    """
