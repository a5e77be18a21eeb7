"""The loops that move the fleet: one noun per file, one step per loop."""
