"""`python -m node_anomaly_trainer`."""

from node_anomaly_trainer.cli import main

if __name__ == "__main__":
    main()
