"""Messages on their way: what a send writes, what the log holds for this process, and who waits for it."""
