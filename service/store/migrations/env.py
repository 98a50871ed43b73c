"""Run by Alembic: migrates the connection that `service.store.database.sqlite.migrate` hands over."""

from alembic import context

from service.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
