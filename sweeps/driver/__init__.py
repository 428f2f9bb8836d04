"""Everything around a running sweep, each file a noun; `sweeps/launch.py` puts them together."""
