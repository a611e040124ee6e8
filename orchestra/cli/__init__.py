"""The command line: verbs that parse, call the API, and show."""
