"""What begins and ends with a command: the environment of the three tools, secrets, child processes, cancelling."""
