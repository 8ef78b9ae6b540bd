"""History through a bundle and then through the shipped alert rules: which alerts there would have been."""
