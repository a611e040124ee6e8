"""Numbers, dates, times, units and currencies in text."""
