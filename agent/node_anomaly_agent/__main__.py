"""`python -m node_anomaly_agent` is the command anomaly-agent."""

import sys

from node_anomaly_agent.cli import main

sys.exit(main())
