"""An app of places, as sensible people would move it: references, geopoints, cents, trees, derived ids, shared tables."""
