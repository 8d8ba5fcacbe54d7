"""Counts and durations in messages."""


def pluralize(count: int, noun: str) -> str:
    """A count with its noun: ``1 frame``, ``2 frames``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def format_duration(seconds: float) -> str:
    """A duration in a unit that suits it: ``50 s``, ``12 min``, ``3.5 h`` or ``68 days``."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            count = seconds / length
            return f"{count:.1f} {unit}" if count < 10 else f"{count:.0f} {unit}"
    return f"{seconds:.0f} s"
