"""The processes that share a file: where they meet, how each shows that it lives, what the dead leave."""
