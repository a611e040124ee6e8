"""Training of encoder agents: classifiers, taggers, table readers and solvers."""
