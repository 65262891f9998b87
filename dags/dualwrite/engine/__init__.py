"""Compares documents with rows, classifies the differences, and writes beside live clients."""
