"""What stands behind the command line: the commands that are more than a call, and what they show on the terminal."""
