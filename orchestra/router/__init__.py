"""The router: a request becomes a plan that cannot be ill-formed. Pure; the engine carries out what it asks for."""
