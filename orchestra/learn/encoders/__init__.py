"""Training of encoder agents: classifiers, slot taggers, span readers, table readers and word-problem solvers."""
