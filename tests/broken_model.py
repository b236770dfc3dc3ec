"""A model that can not even be imported."""

print("importing")
raise RuntimeError("broken on purpose\nin two lines")
