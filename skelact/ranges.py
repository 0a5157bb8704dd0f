"""The numbers that settings may be: one table for the functions, the trainings and the command line."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from numbers import Integral, Real

from skelact.errors import SkelactError

MOST = 10**9  # of whole numbers that have no other end
ENDLESS = (MOST, math.inf)


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included unless ``open`` says ``low`` or ``high``.

    Attributes:
        low, high: the ends.
        open: the end that is not included.
        whole: whether only whole numbers are.
    """

    low: float
    high: float = math.inf
    open: str = ""
    whole: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            return False
        number = float(value)
        inside = self.low <= number <= self.high and math.isfinite(number)
        return inside and not (self.open and number == getattr(self, self.open))

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.open == "low" else f"from {self.low:g}"
        end = f" to {'below ' * (self.open == 'high')}{self.high:.10g}"
        if self.high in ENDLESS:
            end = "" if self.open == "low" else " on"
        return f"a {'whole ' * self.whole}number {low}{end}"


COUNT = Range(1, MOST, whole=True)
POSITIVE = Range(0, open="low")
SHARE = Range(0, 1, open="high")
RANGES = {
    **dict.fromkeys(("topk", "clips", "rounds", "batch_size", "num_person", "max_frames", "stride"), COUNT),
    **dict.fromkeys(("epochs", "repeat", "val_every", "clip_len"), COUNT),
    **dict.fromkeys(("window_s", "step_s", "duration_s", "timeout_s", "lr"), POSITIVE),
    **dict.fromkeys(("min_duration_s", "report_every", "fusion_weights"), Range(0)),
    **dict.fromkeys(("warmup_epochs", "weight_decay", "augment_strength", "mixup"), Range(0)),
    **dict.fromkeys(("momentum", "label_smoothing", "ema", "dropout", "margin"), SHARE),
    "width": Range(6, 10**6, whole=True),
    "workers": Range(0, MOST, whole=True),
    "seed": Range(0, 2**32 - 1, whole=True),
    "fps": Range(0.1, 1000),
}


def check_numbers(optional: Collection[str] = (), **settings: object) -> None:
    """Refuse settings that are none of their ``RANGES``.

    Args:
        optional: names of those that may be None.
        settings: the values by name.

    Raises:
        SkelactError: one is out of its range, NaN, or no number.
    """
    for name, value in settings.items():
        if value not in RANGES[name] and not (value is None and name in optional):
            raise SkelactError(f"{name}: expected {RANGES[name]}, found {value!r}")
