"""The verbs of the command line, by subject; `pq.cli` imports the module of a verb when it runs."""
