"""Everything that one layer has in one process: opened, registered, kept in order, closed."""
