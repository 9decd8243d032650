"""Job files: reads their jobs as a stream, makes new files, and writes jobs as other workers read them."""
