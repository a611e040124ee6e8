"""Valid workflows: every kind and every modifier at least once."""

from __future__ import annotations

SAMPLES = (
    """
input: {text: str}
output: ${b}
nodes:
  a: {tool: shout, with: {text: "${input.text}"}, retry: 3, timeout: 30}
  b: {agent: writer, with: {text: "say ${a}"}}
""",
    """
description: Maps, chooses, falls back.
input: {text: {type: str, default: a b, description: some words}, go: bool}
budget: {tokens: 1000, seconds: 60, calls: 10}
defaults: {retry: 2, timeout: 9}
label: public
output: {n: "${n}", said: "${said}", maybe: "${maybe}"}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  loud: {tool: shout, each: "${words}", as: word, limit: 100, concurrency: 4, when: "${word != 'b'}", with: {text: "${word}"}}
  n: {tool: count, with: {items: "${loud.values}"}}
  maybe: {tool: shout, when: "${input.go}", with: {text: "${words[0]}"}}
  said: {first_of: ["${maybe}", nothing]}
  sent: {tool: send, after: [said], fallback: not sent, with: {text: "${said}"}}
""",  # noqa: E501
    """
input: {question: str, context: str}
output: ${reading.answer}
nodes:
  reading:
    agent: reader
    with: {question: "${input.question}", context: "${input.context}"}
    escalate: ${size(input.context) > 500}
    checks: [quote, numbers]
    against: ${input.context}
    accept: 0.7
    otherwise: [retry, escalate, abstain]
""",
    """
output: ${grown}
nodes:
  grown:
    loop:
      at_most: 4
      until: ${size(next) >= 3 && turn > 1}
      nodes:
        next: {tool: grow, with: {text: "${previous}"}}
      output: ${next}
""",
    """
types: {Line: {text: str, n: int | null}}
input: {lines: "list[Line]"}
output: {all: "${both.values}", judged: "${judged}"}
nodes:
  both:
    each: ${input.lines}
    as: line
    call:
      nodes:
        loud: {tool: shout, with: {text: "${line.text}"}}
        said: {agent: writer, with: {text: "${loud} of ${line.n != null ? string(line.n) : 'none'}"}}
      output: {loud: "${loud}", said: "${said}"}
  judged: {verify: "${both.values}", checks: [numbers], against: "${input.lines}"}
""",
    """
input: {text: str}
output: ${answer}
nodes:
  again: {call: twice, with: {text: "${input.text}"}}
  answer: {ask: "Is ${again} right?", options: ['yes', 'no']}
""",
    """
input: {goal: str}
output: ${made}
nodes:
  made: {plan: "${input.goal}", with: {goal: "${input.goal}"}, agents: [writer], tools: [split], returns: "list[str]", limits: {steps: 3}}
""",  # noqa: E501
)
