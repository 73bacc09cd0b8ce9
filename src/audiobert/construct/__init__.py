"""Make AuditoryBench from audio with metadata: categorize, animal, pitch, wiki, split, review."""
