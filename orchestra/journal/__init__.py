"""The one record of what happened: an append-only log of events, and values stored once by digest."""
