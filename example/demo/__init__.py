"""The command that sets up and starts everything."""
