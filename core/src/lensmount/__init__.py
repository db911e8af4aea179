"""lensmount: run any vision model on any backend."""
