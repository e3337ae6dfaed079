"""The database: engines for SQLite and PostgreSQL, transactions, the writer lock, the schema at start-up."""
