"""The fleet: servers, adapters, dispatch. It implements the protocol `Workers`."""
