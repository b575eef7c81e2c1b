"""Packet, link and process faults: one file per fault."""
