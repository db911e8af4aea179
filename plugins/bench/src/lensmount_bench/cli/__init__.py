"""The commands `bench`, `eval` and `tune`."""
