"""The OpenAI-compatible API below `/v1`: each workflow, each agent and the router is a model.

Messages become the inputs of a run; evidence, verdicts and what was withheld are in the field `orchestra` of a reply.
"""
