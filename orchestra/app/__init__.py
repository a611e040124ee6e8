"""The application: projects, runs, results, plans and what depends on the journal of earlier runs."""
