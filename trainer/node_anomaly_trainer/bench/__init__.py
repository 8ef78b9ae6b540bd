"""`anomaly-trainer bench`: train, export and score labelled series of other people, and say how good that is.

Each entity is treated as a node would be: a bundle from its `train`, written, verified and read back, then
core's scorer over `test`, tick by tick. Labels are looked at when the scores are written. The format of the
data is docs/bench-data.md.
"""
