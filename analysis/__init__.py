"""What the results say: schema, records, statistics, figures. Imports neither torch nor ray."""
