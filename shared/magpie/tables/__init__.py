"""Tables that a person keeps: CSV files, read strictly, with every problem told at once."""
