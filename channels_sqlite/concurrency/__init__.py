"""Threads, event loops, forks, signals and the interpreter's end, for all the other rooms."""
