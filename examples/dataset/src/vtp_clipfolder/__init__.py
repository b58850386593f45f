"""A folder of clips and one JSONL file as a data set of vtp."""
