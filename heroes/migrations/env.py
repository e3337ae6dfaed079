"""How Alembic runs here: one transaction for all migrations, so that a schema is whole or as it was."""

from alembic import context

from heroes.extensions import db

BEGIN = {
    "sqlite": ["BEGIN IMMEDIATE"],
    # The service's timeouts are too short for a migration and for waiting until another's is through. Only locks on
    # tables keep theirs: behind a statement that waits for one, everybody else would wait too. The number is our own.
    "postgresql": [
        "BEGIN",
        "SET LOCAL statement_timeout = 0",
        "SET LOCAL idle_in_transaction_session_timeout = 0",
        "SET LOCAL lock_timeout = 0",
        "SELECT pg_advisory_xact_lock(1212502867)",
        "SET LOCAL lock_timeout TO DEFAULT",
    ],
}

with db.engine.connect() as connection:
    for statement in BEGIN[connection.dialect.name]:
        connection.exec_driver_sql(statement)
    context.configure(connection=connection, target_metadata=db.metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
