"""A live page of the running stack for a terminal: what the workers have to do, and whether somebody has to look."""
