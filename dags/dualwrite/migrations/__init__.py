"""Applies sql/migrations: files, their plan, the migrator, and the schema that they promise."""
