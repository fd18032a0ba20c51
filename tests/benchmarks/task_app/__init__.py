"""A Django app with the tasks that the benchmarks enqueue: workers find them as `tasks.py` of an installed app."""
