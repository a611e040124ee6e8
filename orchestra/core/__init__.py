"""Types and protocols that every other package uses: events, errors, settings, labels, the clock and files."""
