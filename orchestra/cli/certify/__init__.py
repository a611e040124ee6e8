"""The command `orchestra certify`."""
