"""Neural processes: networks that answer with a predictive distribution after one pass over the rows of a task."""
