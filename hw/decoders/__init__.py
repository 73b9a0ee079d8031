"""Operand decoders: what turns parameter slots into (position, weight)."""
