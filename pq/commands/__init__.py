"""The verbs of the command line, one file each; `pq.cli` imports one when it is called."""
