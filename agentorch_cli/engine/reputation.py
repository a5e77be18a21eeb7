"""What the scheduler knows of how well agents do, in memory: the mirror of the ledger.

The table is written with each beat; here an outcome counts at once, so the next choice knows of
it. Whoever leads reads the table when it takes the lead and every hour (time fades evidence), and
hears of what other nodes and closed votes wrote. See `core/ledger.py` for what evidence is.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentorch_cli.core.ledger import NOTHING, OUTCOME_DECAY, Evidence, estimate
from agentorch_cli.core.matching import Member, Roster

Row = tuple[str, str, str, Evidence]
"""agent_id, skill, task_type, evidence."""


class Reputation:
    """Evidence by agent, skill and type; estimates go to the roster."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self._rows: dict[str, dict[tuple[str, str], Evidence]] = {}
        self._overall: dict[str, Evidence] = {}

    def load(self, rows: Iterable[Row], *, all_of_them: bool = True) -> None:
        """Take what the table says for what is so; `all_of_them`: of other rows nothing is known any more."""
        if all_of_them:
            self._rows.clear()
        touched = set()
        for agent_id, skill, type, evidence in rows:
            self._rows.setdefault(agent_id, {})[skill, type] = evidence
            touched.add(agent_id)
        for agent_id in touched:
            self._overall[agent_id] = _sum(self._rows[agent_id].values())
            self.tell(agent_id)

    def tell(self, agent_id: str) -> None:
        """Let the roster know all that is known of this agent."""
        member = self.roster.members.get(agent_id)
        rows = self._rows.get(agent_id)
        if member is None or rows is None:
            return
        overall = self._overall[agent_id]
        skills: dict[str, Evidence] = {}
        for (skill, _), evidence in rows.items():
            skills[skill] = skills.get(skill, NOTHING).plus(evidence)
        estimates = {(skill, ""): estimate(overall, evidence) for skill, evidence in skills.items()}
        trials = {(skill, ""): evidence.trials for skill, evidence in skills.items()}
        for (skill, type), evidence in rows.items():
            estimates[skill, type] = estimate(overall, skills[skill], evidence)
            trials[skill, type] = evidence.trials
        self.roster.know(agent_id, estimate(overall), estimates, trials)

    def outcome(self, agent_id: str, skill: str, type: str, *, went_well: bool) -> None:
        """One more attempt of this agent ended. The roster is told with the agent's next change."""
        rows = self._rows.setdefault(agent_id, {})
        before = rows.get((skill, type), NOTHING)
        after = Evidence(
            before.right * OUTCOME_DECAY + (1.0 if went_well else 0.0), before.trials * OUTCOME_DECAY + 1.0
        )
        rows[skill, type] = after
        known = self._overall.get(agent_id, NOTHING)
        overall = self._overall[agent_id] = Evidence(
            max(0.0, known.right + after.right - before.right),
            max(0.0, known.trials + after.trials - before.trials),
        )
        member = self.roster.members.get(agent_id)
        if member is not None:
            self._note(member, skill, type, overall)

    def _note(self, member: Member, skill: str, type: str, overall: Evidence) -> None:
        rows = self._rows[member.agent_id]
        of_skill = _sum(evidence for (known, _), evidence in rows.items() if known == skill)
        typed = rows[skill, type]
        member.performance = estimate(overall)
        member.estimates[skill, ""] = estimate(overall, of_skill)
        member.estimates[skill, type] = estimate(overall, of_skill, typed)
        member.trials[skill, ""] = of_skill.trials
        member.trials[skill, type] = typed.trials
        self.roster.distinguish(skill, type)


def _sum(evidence: Iterable[Evidence]) -> Evidence:
    right = trials = 0.0
    for one in evidence:
        right += one.right
        trials += one.trials
    return Evidence(right, trials)
