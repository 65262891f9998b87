"""Compares documents with rows, classifies what differs, and writes beside live clients."""
