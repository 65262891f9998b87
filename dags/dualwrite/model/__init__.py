"""Pure: documents and rows, verdicts, and the parameters of runs. Reads and writes nothing."""
