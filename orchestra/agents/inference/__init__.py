"""Models that run in this process: encoders, classifiers, taggers, table readers and solvers."""
