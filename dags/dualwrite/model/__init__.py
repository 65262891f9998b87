"""Pure: what documents and rows are, what a difference is called, what a run may be asked. Reads and writes nothing."""
