"""Hold AuditoryBench: rows, protocols, models to test, statistics, tables, audit."""
