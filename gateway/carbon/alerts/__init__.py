"""What is out of the ordinary, since when, and why: baselines, detection, causes. Statistics, in floats: no figure."""
