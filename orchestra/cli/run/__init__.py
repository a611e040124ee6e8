"""Commands that run a workflow, a request or a plan."""
