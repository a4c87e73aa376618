"""Log records of the server and its tasks: formatters, files, task lines."""
