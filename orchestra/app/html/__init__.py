"""HTML of runs, results and workflows: pages for a browser and outputs of notebook cells.

The HTML loads and executes nothing. All texts are untrusted: the templates escape them, and bidi controls and invisible
characters are spelled out.
"""

__all__ = ["content", "render"]
