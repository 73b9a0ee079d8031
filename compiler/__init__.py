"""From an artifact to a Program: layers, ROM images, memory map, cycles and bits."""
