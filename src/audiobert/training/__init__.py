"""Train the parts, one file per part."""
