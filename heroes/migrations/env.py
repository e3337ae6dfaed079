"""How Alembic runs here: one transaction for all migrations, so that a schema is whole or as it was."""

from alembic import context

from heroes.extensions import db

with db.engine.connect() as connection:
    if connection.dialect.name == "sqlite":
        # Python's sqlite3 begins no transaction before DDL, so it is begun here.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    context.configure(connection=connection, target_metadata=db.metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
