"""Inference in this process: encoders, classifiers, taggers, span extraction, slot filling, and calibration."""

__all__ = [
    "array_files",
    "calibration",
    "crf_tagger",
    "encoder",
    "linear",
    "logprob_confidence",
    "model_file",
    "overlap_features",
    "slot_filling",
    "span_extraction",
    "tables",
    "text_classifier",
    "threads",
    "word_problems",
]
