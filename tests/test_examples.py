"""The examples do real work: what their agents find is compared with what is found another way."""

from __future__ import annotations

import calendar
import importlib
import itertools
import json
import random
import re
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agentorch_cli.agents import WorkFailed
from agentorch_cli.cli.fleet import SCRIPTS, examples_folder, served_agent
from agentorch_cli.core.model import Coverage, TaskSpec
from agentorch_cli.documents import load_document
from agentorch_cli.taskfile import read_agents, read_tasks, read_template

EXAMPLES = Path(__file__).parent.parent / "examples"
DOCUMENTS = EXAMPLES / "documents"
TASKS = sorted((EXAMPLES / "tasks").iterdir())
SCHEDULES = sorted((EXAMPLES / "schedules").iterdir())
REPORTS = sorted(path.name for path in DOCUMENTS.glob("*.md"))


@pytest.fixture(autouse=True)
def agents_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agents are scripts that import each other by name."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "agents"))


def agent_module(name: str) -> ModuleType:
    return importlib.import_module(name)


def text_of(name: str) -> str:
    return (DOCUMENTS / name).read_text(encoding="utf-8")


# The files fit together


def test_the_fleet_of_the_demonstration_is_the_one_that_is_written_down() -> None:
    agents = {agent.agent_id: agent for agent in read_agents(load_document(EXAMPLES / "agents.toml"))}

    served = served_agent(EXAMPLES)
    connecting = {agent_id for agent_id, agent in agents.items() if agent.exec is None}

    assert connecting == set(SCRIPTS)
    assert replace(agents["stocktaker"], exec=None) == replace(served, exec=None)
    assert examples_folder() == EXAMPLES


@pytest.mark.parametrize("agent_id", SCRIPTS)
def test_an_agent_is_what_the_agents_file_says(agent_id: str) -> None:
    (written,) = (
        agent for agent in read_agents(load_document(EXAMPLES / "agents.toml")) if agent.agent_id == agent_id
    )
    script, *school = SCRIPTS[agent_id]
    module = agent_module(script.removesuffix(".py"))

    agent = module.build(*school) if school else module.agent

    assert (agent.agent_id, agent.type, agent.capabilities, agent.slots, agent.metadata) == (
        written.agent_id,
        written.type,
        written.capabilities,
        written.slots,
        written.metadata,
    )


@pytest.mark.parametrize("path", [*TASKS, *SCHEDULES], ids=lambda path: path.name)
def test_every_task_can_be_done_by_an_agent_of_the_fleet(path: Path) -> None:
    abilities = [set(agent.capabilities) for agent in read_agents(load_document(EXAMPLES / "agents.toml"))]
    ids = itertools.count()

    tasks = read_tasks(load_document(path), new_id=lambda: f"task-{next(ids)}").tasks

    def can_be_done(task: TaskSpec) -> bool:
        required = set(task.required_capabilities)
        if task.coverage is Coverage.TEAM:
            return required <= set().union(*abilities) and not any(required <= able for able in abilities)
        return any(required <= able for able in abilities)

    assert tasks
    assert [task.name for task in tasks if not can_be_done(task)] == []


@pytest.mark.parametrize("path", SCHEDULES, ids=lambda path: path.name)
def test_every_schedule_can_be_submitted_again_and_again(path: Path) -> None:
    ids = itertools.count()

    file = read_template(load_document(path), new_id=lambda: f"task-{next(ids)}")

    assert file.plan().tasks


def test_the_report_is_a_graph_of_more_than_twenty_tasks() -> None:
    ids = itertools.count()
    file = read_tasks(load_document(EXAMPLES / "tasks" / "report.toml"), new_id=lambda: f"task-{next(ids)}")

    plan = file.plan()

    assert len(file.tasks) == 3 * len(REPORTS) + 3
    assert len({task.name for task in file.tasks}) == len(file.tasks)
    assert plan is not None


def test_the_step_of_a_person_waits_for_its_document_and_lets_the_rest_wait() -> None:
    ids = itertools.count()
    file = read_tasks(
        load_document(EXAMPLES / "people" / "approval.toml"), new_id=lambda: f"task-{next(ids)}"
    )

    layers = file.plan().layers()

    names = {task.task_id: task.name for task in file.tasks}
    assert [sorted(str(names[task_id]) for task_id in layer) for layer in layers] == [
        ["count harbour", "facts harbour"],
        ["summary harbour", "timeline of the harbour"],
        ["approve the summary"],
        ["count what goes to print"],
    ]
    (approval,) = (task for task in file.tasks if task.required_capabilities == ("approve",))
    assert (approval.timeout_seconds, approval.retries) == (8 * 3600.0, 0)


def test_every_document_that_a_task_names_is_there() -> None:
    text = "".join(path.read_text() for path in TASKS)
    named = set(re.findall(r"[\w-]+\.(?:md|txt)\b|[\w-]+-bill\.json|claims\.json", text))

    assert {name for name in named if not (DOCUMENTS / name).is_file()} == set()
    assert {path.name for path in DOCUMENTS.iterdir()} == named


def test_every_claim_is_checked_by_a_task() -> None:
    claims = json.loads(text_of("claims.json"))
    text = (EXAMPLES / "tasks" / "claims.toml").read_text()

    assert re.findall(r'claim = "([\w-]+)"', text) == [claim["id"] for claim in claims]


# Counting


def test_the_counter_counts_a_text_as_a_person_does() -> None:
    count = agent_module("counter").count

    found = count("# A heading\n\nThe mill stood idle. It rained 3.5 days!\n\nThen 1,200 litres ran.")

    assert found["words"] == 10
    assert found["numbers"] == 2
    assert found["sentences"] == 3
    assert found["paragraphs"] == 2
    assert found["longest_sentence_words"] == 4


def test_reading_ease_is_flesch_s_formula() -> None:
    counter = agent_module("counter")

    # 6 words, 1 sentence, 1 + 1 + 1 + 1 + 1 + 1 syllables
    assert counter.reading_ease(["the", "cat", "sat", "on", "the", "mat"], 1) == pytest.approx(116.145)
    known = {"harbour": 2, "bridge": 1, "table": 2, "observatory": 5, "rhythm": 1}
    assert {word: counter.syllables(word) for word in known} == known


@pytest.mark.parametrize("name", REPORTS)
def test_the_counter_finds_the_words_that_splitting_finds(name: str) -> None:
    body = "\n".join(line for line in text_of(name).splitlines() if not line.startswith("#"))
    by_hand = [part.strip(".,:;!?()'\"") for part in body.split()]

    found = agent_module("counter").count(text_of(name))

    assert found["words"] == sum(any(letter.isalpha() for letter in word) for word in by_hand)
    assert found["sentences"] == len(re.findall(r"[.!?](?:\s|$)", body))


# Facts


def test_the_extractor_takes_dates_with_their_precision() -> None:
    dates = agent_module("extractor").dates("It ran from May 2021 to 3 June 2022, as in 1998; 2,023 came.")

    assert dates == [
        {"text": "May 2021", "iso": "2021-05"},
        {"text": "3 June 2022", "iso": "2022-06-03"},
        {"text": "1998", "iso": "1998"},
    ]


def test_the_extractor_takes_quantities_into_base_units() -> None:
    quantities = agent_module("extractor").quantities(
        "A wall of 310 m cost 18.4 million euros; 2.3 km at -5.8 °C took 9,600 kg and 1 litres per minute."
    )

    assert [(found["value"], found["unit"]) for found in quantities] == [
        (310, "m"),
        (18_400_000, "EUR"),
        (2300, "m"),
        (-5.8, "°C"),
        (9600, "kg"),
        (1, "l/min"),
    ]


def test_the_extractor_takes_names_and_not_beginnings_of_sentences() -> None:
    names = agent_module("extractor").names(
        "Pieter Aalbers met Doctor Selma Ruud of the University of Karsund in May 2021."
    )

    assert names == ["Pieter Aalbers", "Doctor Selma Ruud", "University of Karsund"]
    assert agent_module("extractor").names("Water froze.") == []


@pytest.mark.parametrize("name", REPORTS)
def test_every_written_out_day_is_found_in_the_document(name: str) -> None:
    months = list(calendar.month_name)[1:]
    parts = text_of(name).replace(",", " ").replace(".", " ").split()
    by_hand = [
        f"{parts[at + 1]}-{months.index(parts[at]) + 1:02}-{int(parts[at - 1]):02}"
        for at in range(1, len(parts) - 1)
        if parts[at] in months and parts[at - 1].isdigit() and parts[at + 1].isdigit()
    ]

    found = agent_module("extractor").extract(text_of(name))

    assert by_hand
    assert [date["iso"] for date in found["dates"] if len(date["iso"]) == 10] == by_hand


# Summaries


def test_ranks_are_those_of_the_linear_system() -> None:
    summariser, common = agent_module("summariser"), agent_module("common")
    sentences = common.sentences(text_of("harbour.md"))[:12]
    shares = summariser._shares(summariser.similarities(sentences))
    count, damping = len(sentences), summariser.DAMPING
    equations = [
        [float(row == column) - damping * shares[column][row] for column in range(count)]
        + [(1 - damping) / count]
        for row in range(count)
    ]

    expected = solve(equations)

    assert summariser.rank(sentences) == pytest.approx(expected, abs=1e-8)
    assert sum(expected) == pytest.approx(1)


def solve(equations: list[list[float]]) -> list[float]:
    """Gauss and Jordan, with the largest pivot."""
    size = len(equations)
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(equations[row][column]))
        equations[column], equations[pivot] = equations[pivot], equations[column]
        equations[column] = [value / equations[column][column] for value in equations[column]]
        for row in range(size):
            if row != column:
                factor = equations[row][column]
                equations[row] = [
                    value - factor * base
                    for value, base in zip(equations[row], equations[column], strict=True)
                ]
    return [row[-1] for row in equations]


def test_a_summary_keeps_the_order_and_prefers_facts() -> None:
    choose = agent_module("summariser").choose

    assert choose([0.3, 0.1, 0.29, 0.31], Counter(), 2) == [0, 3]
    assert choose([0.3, 0.1, 0.29, 0.31], Counter({2: 1}), 2) == [2, 3]


def test_sentences_with_nothing_in_common_weigh_the_same() -> None:
    rank = agent_module("summariser").rank

    assert rank(["Cats purr.", "Ships sail.", "Rivers bend."]) == pytest.approx([1 / 3] * 3)


# Checking


def test_the_vote_of_the_checkers_is_the_truth_and_not_always_unanimous() -> None:
    checker, common = agent_module("checker"), agent_module("common")
    disputed = []

    for claim in json.loads(text_of("claims.json")):
        text = common.sentences(text_of(claim["document"]))
        verdicts = Counter(school(claim["claim"], text)[0] for school in checker.SCHOOLS.values())
        winner, votes = verdicts.most_common(1)[0]
        if votes < 3:
            disputed.append(claim["id"])

        assert (winner, claim["id"]) == (claim["truth"], claim["id"])
        assert votes >= 2

    assert disputed == ["observatory-height", "library-volumes"]


def test_a_verdict_comes_with_a_sentence_of_the_document() -> None:
    checker, common = agent_module("checker"), agent_module("common")
    text = common.sentences(text_of("orchard.md"))

    for school in checker.SCHOOLS.values():
        verdict, because = school("The harvest of 2023 was 980 tonnes.", text)

        assert verdict == "supported"
        assert "980 tonnes" in because
        assert because in " ".join(text_of("orchard.md").split())


def test_an_unknown_claim_fails_for_good() -> None:
    with pytest.raises(WorkFailed, match="no claim 'x'") as failure:
        agent_module("checker").find_claim("claims.json", "x")

    assert not failure.value.retryable


# Costs


def test_the_estimate_is_what_the_bill_adds_up_to() -> None:
    """In whole hundredths of a cent, by hand: no decimals, no rounding but at the end of each line."""
    lines = {
        "larch, sawn, C24": 384 * 112 * 68500 / 1e5,
        "cable, galvanised, 36 mm": 236 * 103 * 5890 / 1e4,
        "hangers, stainless, 12 mm": 6125 * 105 * 945 / 1e5,
        "rock anchors, 14 m": 8 * 412000 / 1e2,
        "concrete C30/37": 273 * 107 * 21250 / 1e5,
        "reinforcement B500B": 3180 * 104 * 187 / 1e4,
        "deck screws, A4, 8 x 160 mm": 5400 * 102 * 78 / 1e4,
        "wire mesh for the railing": 202 * 106 * 3120 / 1e4,
        "carpenters": 1460 * 54,
        "riggers": 690 * 71.5,
        "drilling crew": 310 * 96,
    }

    found = run_handler("estimator", "estimate_cost", {"bill": "footbridge-bill.json"})

    assert {line["item"]: line["cost"] for line in found["lines"]} == pytest.approx(lines, abs=0.0051)
    assert found["net"] == pytest.approx(sum(line["cost"] for line in found["lines"]))
    assert found["overheads"] == pytest.approx(found["net"] * 0.085, abs=0.0051)
    assert found["total"] == pytest.approx(found["net"] * 1.085 * 1.06, abs=0.02)
    assert found["dearest"] == "carpenters"


def run_handler(module: str, function: str, data: dict[str, Any]) -> Any:
    """Call a handler with the things that it looks at."""

    class OnlyData:
        def __init__(self) -> None:
            self.data = data
            self.cancelled = threading.Event()

        def progress(self, *_: Any, **__: Any) -> None:
            """Nobody looks."""

    return getattr(agent_module(module), function)(OnlyData())


# Optimising


def test_annealing_finds_the_least_energy_that_trying_everything_finds() -> None:
    optimiser = agent_module("optimiser")
    data = json.loads((EXAMPLES / "tasks" / "planning.json").read_text())["tasks"][1]["data"]
    qubo = optimiser.site_qubo(data["value"], data["overlap"])

    runs = [optimiser.anneal(qubo, random.Random(data["seed"] + run)) for run in range(data["runs"])]

    assert min(energy for energy, _ in runs) == least_energy(qubo)
    assert all(energy == pytest.approx(optimiser.energy_of(qubo, chosen)) for energy, chosen in runs)


def least_energy(qubo: dict[tuple[str, str], float]) -> float:
    """Every one of the 2^n choices."""
    names = sorted({name for pair in qubo for name in pair})
    bit = {name: 1 << index for index, name in enumerate(names)}
    terms = [(bit[one] | bit[other], term) for (one, other), term in qubo.items()]
    return min(
        sum(term for mask, term in terms if choice & mask == mask) for choice in range(1 << len(names))
    )


def test_the_two_loads_are_worth_the_same_as_nearly_as_trying_everything_can_make_them() -> None:
    file = read_tasks(load_document(EXAMPLES / "tasks" / "footbridge.toml"), new_id=lambda: "t")
    bill = json.loads(text_of("footbridge-bill.json"))["materials"]
    worth = {item["item"]: item["quantity"] * item["unit_price"] for item in bill}
    halves = [
        abs(sum(worth.values()) - 2 * sum(worth[item] for item in chosen))
        for size in range(len(worth) + 1)
        for chosen in itertools.combinations(worth, size)
    ]

    found = run_handler("optimiser", "split_loads", file.tasks[0].data)

    assert found["difference"] == pytest.approx(min(halves), abs=0.011)
    assert sorted(item for load in found["loads"] for item in load) == sorted(worth)
    assert found["worth"] == [pytest.approx(sum(worth[i] for i in load), abs=0.01) for load in found["loads"]]


def test_the_same_seed_finds_the_same() -> None:
    optimiser = agent_module("optimiser")
    qubo = {("a", "a"): -2.0, ("b", "b"): -3.0, ("a", "b"): 4.0}

    assert (
        optimiser.anneal(qubo, random.Random(7)) == optimiser.anneal(qubo, random.Random(7)) == (-3.0, {"b"})
    )


# Reading


def test_only_the_old_reader_can_read_the_survey() -> None:
    reader = agent_module("reader")

    with pytest.raises(WorkFailed, match=r"old-survey\.txt, line 2: byte 0xc9 is not utf-8") as failure:
        reader.decode("old-survey.txt", reader.ENCODINGS["modern"])
    encoding, text = reader.decode("old-survey.txt", reader.ENCODINGS["old"])

    assert failure.value.retryable
    assert encoding == "iso-8859-1"
    assert "Éloi Fèvre and Jürgen Groß" in text


@pytest.mark.parametrize("name", ["../agents.toml", "nothing.md", "", "."])
def test_a_document_that_is_not_there_fails_for_good(name: str) -> None:
    with pytest.raises(WorkFailed, match="no document") as failure:
        agent_module("common").document_path(name)

    assert not failure.value.retryable


# The shell agent


def test_the_inventory_agrees_with_a_count_in_python() -> None:
    texts = [text_of(name) for name in REPORTS]
    words = Counter(word for text in texts for word in re.findall(r"[a-z]+", text.lower()) if len(word) >= 8)
    commonest = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:5]

    found = json.loads(take_inventory({"taskId": "t", "data": {"suffix": "md"}}).stdout)

    assert found["documents"] == len(texts)
    assert found["words"] == sum(len(text.split()) for text in texts)
    assert found["lines"] == sum(text.count("\n") for text in texts)
    assert found["bytes"] == sum((DOCUMENTS / name).stat().st_size for name in REPORTS)
    assert list(found["common"].items()) == commonest


@pytest.mark.parametrize("data", [{}, {"suffix": "xyz"}, {"suffix": "../../etc/passwd"}])
def test_the_inventory_says_what_it_lacks(data: dict[str, str]) -> None:
    done = take_inventory({"data": data})

    assert done.returncode == 1
    assert "documents" in done.stderr or "suffix" in done.stderr


def take_inventory(task: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", EXAMPLES / "agents" / "inventory.sh"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_every_agent_of_the_examples_explains_itself() -> None:
    """Imported together in one process, as scripts they would take a second each."""
    modules = [path.stem for path in (EXAMPLES / "agents").glob("*.py")]
    code = f"import sys; sys.path.insert(0, {str(EXAMPLES / 'agents')!r})\nimport {', '.join(modules)}"

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
