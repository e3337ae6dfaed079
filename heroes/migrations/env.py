"""How Alembic runs here: one transaction for all migrations, so that a schema is whole or as it was."""

from alembic import context

from heroes.extensions import db

with db.engine.connect() as connection:
    # Python's sqlite3 begins no transaction before DDL, so it is begun here; on PostgreSQL the lock is named by a number
    # of our own and goes with the transaction.
    begin = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(1212502867)"}
    connection.exec_driver_sql(begin[connection.dialect.name])
    context.configure(connection=connection, target_metadata=db.metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
