"""Tasks, and what runs them. A task is a pure function of its arguments and of artifacts in the store."""
