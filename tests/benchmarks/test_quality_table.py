"""The tables of docs/quality.md follow from measured lines, and say where privacy does not pay."""

from benchmarks._quality_table import BEGIN, END, markdown, write_table

PRIVATE = "federated, epsilon 3"
LINES = [
    {"task": "next behaviour", "data": "a log", "scheme": "central", "recall@20": 0.5, "mrr@20": 0.25},
    {"task": "next behaviour", "data": "a log", "scheme": PRIVATE, "recall@20": 0.3, "mrr@20": 0.1},
    {"task": "next behaviour", "data": "a log", "scheme": "markov", "recall@20": 0.4},
    {"task": "next behaviour", "data": "other", "scheme": "local-only", "recall@20": 0.9},
    {"task": "sales", "data": "a log", "scheme": PRIVATE, "wape": 0.2},
    {"task": "sales", "data": "a log", "scheme": "seasonal-naive", "wape": 0.1},
    {"task": "all", "seconds": 600, "cpu_s": 1_200},
]


def test_a_row_per_scheme_and_a_column_per_known_metric():
    table = markdown(LINES)
    assert "| data | scheme | Recall@20 | MRR@20 |" in table
    assert "| a log | central | 0.500 | 0.250 |" in table
    assert "| a log | markov | 0.400 | – |" in table
    assert "event accuracy" not in table
    assert "10 minutes, 20 minutes of CPU time" in table


def test_it_says_where_a_baseline_beats_the_private_federation_in_either_direction():
    table = markdown(LINES)
    assert f"- Next behaviour, a log: markov has Recall@20 0.400, {PRIVATE} 0.300." in table
    assert f"- Sales, a log: seasonal-naive has WAPE 0.100, {PRIVATE} 0.200." in table
    assert "local-only has" not in table  # another data set
    assert "central has" not in table
    better = [
        line
        for line in LINES
        if line["scheme" if "scheme" in line else "task"] not in ("markov", "seasonal-naive")
    ]
    assert "Nowhere in these tables" in markdown(better)


def test_only_what_lies_between_the_marks_of_a_document_is_replaced(tmp_path):
    page = tmp_path / "quality.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table(page, LINES)
    once = page.read_text()
    write_table(page, LINES)
    assert page.read_text() == once
    assert once.startswith("before\n") and once.endswith("after\n")
    assert "old" not in once
