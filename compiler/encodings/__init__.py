"""One file a sparse format: pack, unpack and cost in bits."""
