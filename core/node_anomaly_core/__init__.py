"""What the agent and the trainer must agree on byte for byte.

Imports the standard library, numpy and the LiteRT runtime; knows neither the agent nor the trainer.
"""

__version__ = "0.1.0"
