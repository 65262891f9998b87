"""The engine: compares Firestore with Postgres, explains every difference, and writes the missing rows."""
