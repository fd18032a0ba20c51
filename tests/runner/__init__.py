"""What `python -m tests` is made of. Standard library only: it runs before anything is installed."""
