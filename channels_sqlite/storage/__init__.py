"""The database file: connections, transactions, SQL, and what its errors mean."""
