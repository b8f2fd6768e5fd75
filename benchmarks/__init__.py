"""What guarded calls cost, against code written by hand and against other libraries; `run.py` is the command."""
