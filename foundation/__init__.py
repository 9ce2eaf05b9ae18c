"""The ground floor: errors with exit codes, durable files, and hints for mistyped names. Imports nothing of the project."""
