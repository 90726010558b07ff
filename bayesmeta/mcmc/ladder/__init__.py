"""Which way each task is sampled: rungs from cheap to dear, and the checks that send a task on."""
