"""A shop as sensible people would move it: generated ids, times in many formats, arrays of maps, soft deletes, enums and arrays."""
