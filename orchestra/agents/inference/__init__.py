"""Inference in this process: encoders, classifiers, taggers, span extraction, slot filling, and calibration."""
