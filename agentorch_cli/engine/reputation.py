"""What the scheduler knows of how well agents do, in memory: the mirror of the ledger.

The table is written a few times per lease; here an outcome counts at once, so the next choice knows
of it. Whoever leads reads the table when it takes the lead and every hour (time fades evidence), and
while there is work looks every few seconds for what other nodes, closed votes and verified outcomes
wrote (`engine/ledger.py`). See `core/ledger.py` for what evidence is.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentorch_cli.core.ledger import NOTHING, Evidence, after_outcomes, estimate
from agentorch_cli.core.matching import Member, Roster

Row = tuple[str, str, str, Evidence]
"""agent_id, skill, task_type, evidence; skill and type are empty for everything an agent did."""

Pending = tuple[str, str, str, float, int]
"""agent_id, skill, task_type, outcomes that went well, outcomes."""


class Reputation:
    """Evidence by agent, skill and type; estimates go to the roster."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self._rows: dict[str, dict[tuple[str, str], Evidence]] = {}
        self._overall: dict[str, Evidence] = {}
        """Of everything an agent did: fades with each of its outcomes, whatever they were of."""

    def load(self, rows: Iterable[Row], *, pending: Iterable[Pending] = (), all_of_them: bool = True) -> None:
        """Take what the table says for what is so; `all_of_them`: of other rows nothing is known any more.

        `pending`: what was counted here (`outcomes`) and the table does not say yet.
        """
        if all_of_them:
            self._rows.clear()
            self._overall.clear()
        taken = set()
        for agent_id, skill, type, evidence in rows:
            taken.add((agent_id, skill, type))
            self._put(agent_id, skill, type, evidence)
        touched = {agent_id for agent_id, _, _ in taken}
        for agent_id, skill, type, good, outcomes in pending:
            if all_of_them or (agent_id, skill, type) in taken:
                before = self._known(agent_id, skill, type)
                self._put(agent_id, skill, type, after_outcomes(before, good, outcomes))
                touched.add(agent_id)
        for agent_id in touched:
            self.tell(agent_id)

    def _known(self, agent_id: str, skill: str, type: str) -> Evidence:
        if not skill:
            return self._overall.get(agent_id, NOTHING)
        return self._rows.get(agent_id, {}).get((skill, type), NOTHING)

    def _put(self, agent_id: str, skill: str, type: str, evidence: Evidence) -> None:
        if skill:
            self._rows.setdefault(agent_id, {})[skill, type] = evidence
        else:
            self._overall[agent_id] = evidence

    def tell(self, agent_id: str) -> None:
        """Let the roster know all that is known of this agent."""
        member = self.roster.members.get(agent_id)
        overall = self._overall.get(agent_id)
        if member is None or overall is None:
            return
        rows = self._rows.get(agent_id, {})
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
        """One more attempt of this agent ended."""
        self.outcomes(agent_id, skill, type, int(went_well), 1)

    def outcomes(self, agent_id: str, skill: str, type: str, good: int, number: int) -> None:
        """So many more attempts of this agent ended, of which `good` went well.

        The roster is told with the agent's next change.
        """
        rows = self._rows.setdefault(agent_id, {})
        rows[skill, type] = after_outcomes(rows.get((skill, type), NOTHING), good, number)
        overall = after_outcomes(self._overall.get(agent_id, NOTHING), good, number)
        self._overall[agent_id] = overall
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
