"""One file a sparse format: the codes of a row and what they cost."""
