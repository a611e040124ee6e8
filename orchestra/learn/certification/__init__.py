"""Labelled answers, attempts and audits that certificates are computed from."""
