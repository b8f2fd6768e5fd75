"""How many machine instructions a call takes: steadier than time, on any machine, whatever else it does."""
