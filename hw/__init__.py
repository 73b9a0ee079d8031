"""Amaranth hardware: one block a file; the file list is the block diagram."""
