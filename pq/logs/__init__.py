"""Make the log of a server: lines of records, files of processes, lines of tasks."""
