"""The agent's own budget: the LSTM goes when it is exceeded for long, and comes back with hysteresis."""

from __future__ import annotations

from agent_fakes import FakeLog, FakeScorer, make_candidate, make_rig
from node_anomaly_agent.config_budget import BudgetConfig
from node_anomaly_agent.degradation import FIRST_REST_TICKS, Budget
from node_anomaly_agent.exposition import expose
from node_anomaly_agent.families import TEXT
from node_anomaly_agent.process_stats import ProcessStats


class Use:
    """A budget fed with ticks of 15 s that use so much of a core and of memory."""

    def __init__(self, **limits: float) -> None:
        self.log = FakeLog()
        self.budget = Budget(BudgetConfig(**limits), self.log)
        self.now = self.cpu_s = 0.0

    def ticks(self, count: int, share: float = 0.0, resident: float = 60e6) -> bool:
        for _ in range(count):
            self.now += 15.0
            self.cpu_s += 15.0 * share
            self.budget.tick(self.now, ProcessStats(cpu_s=self.cpu_s, resident_bytes=resident))
        return self.budget.exceeded


def test_a_budget_exceeded_for_so_many_ticks_in_a_row_drops_the_lstm():
    use = Use(cpu_share=0.01, ticks=5)
    assert not use.ticks(5, 0.02)  # the first has nothing before it
    assert not use.ticks(1, 0.005)
    assert not use.ticks(4, 0.02)
    assert use.ticks(1, 0.02)
    assert use.log.events("warning") == ["budget exceeded, the LSTM is left out"]


def test_memory_counts_as_cpu_does_and_without_limits_nothing_is_dropped():
    assert Use(memory_bytes=50e6, ticks=3).ticks(3)
    assert not Use(ticks=1).ticks(9, 5.0, 1e12)


def test_it_comes_back_after_a_rest_well_below_the_budget_and_rests_longer_the_next_time():
    use = Use(cpu_share=0.01, ticks=5)
    use.ticks(6, 0.02)
    assert use.ticks(FIRST_REST_TICKS + 20, 0.009), "just below the budget is not well below it"
    assert not use.ticks(6, 0.001)
    assert use.ticks(5, 0.02)
    assert use.ticks(2 * FIRST_REST_TICKS - 1, 0.001)
    assert not use.ticks(2, 0.001)


def test_the_loop_drops_the_member_and_shows_it():
    scorer = FakeScorer()
    rig = make_rig(first=make_candidate(scorer=scorer), budget=Use(memory_bytes=1.0, ticks=2).budget)
    rig.process = lambda: ProcessStats(cpu_s=1.0, resident_bytes=2.0)
    rig.daemon.start()
    rig.run_for(60)
    assert not scorer.health.may("lstm")
    text = expose(rig.daemon.snapshot, "0", TEXT)
    assert "anomaly_agent_budget_exceeded 1.0" in text
    assert "anomaly_agent_degradation_level 1.0" in text
    assert 'anomaly_agent_model_failures_total{model="lstm"} 0.0' in text
