"""How each trained part is trained: one file a part."""
