"""How AuditoryBench is made from audio with metadata."""
