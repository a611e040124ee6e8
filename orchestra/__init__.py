"""Orchestra: a fleet of small specialised language models that works as one dependable system."""
