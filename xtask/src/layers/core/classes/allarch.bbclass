# For every processor.
