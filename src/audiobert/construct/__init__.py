"""How AuditoryBench is made from audio with metadata: categorize, animal, pitch, wiki, split, review."""
