"""The fleet: servers, adapters, dispatch. It stands behind the `Workers` door."""
