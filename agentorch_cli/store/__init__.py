"""The only room that speaks SQL: the embedded server, connections, statements, migrations."""
