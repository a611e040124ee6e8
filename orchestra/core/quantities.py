"""Times, durations, amounts of money and sizes as text for people."""

from __future__ import annotations

from datetime import datetime


def format_time(at: float) -> str:
    """Formats a journal timestamp. An invalid number, possible in a damaged journal, is returned as it is."""
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"


def format_duration(value: float) -> str:
    """Formats a duration in seconds."""
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.0f} s"
    minutes = value / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def format_money(value: float) -> str:
    """Formats an amount in the currency of the fleet's prices; empty for 0."""
    if value <= 0:
        return ""
    if value >= 1:
        return f"{value:,.2f}"
    return f"{value:.6f}" if value >= 1e-6 else "<0.000001"


def format_size(count: float) -> str:
    """Formats a number of bytes."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
