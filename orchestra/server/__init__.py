"""The HTTP server: `orchestra serve`, and `create_app` for an application of your own. It parses a request, calls
`Orchestra` and renders the reply.
"""

from orchestra.server.application import create_app
from orchestra.server.settings import JwtSettings, ServerSettings

__all__ = ["JwtSettings", "ServerSettings", "create_app"]
