"""Papers for people who were not there: what a record proves, in the order that a law or a register asks for it.

Nothing about privacy is stated here anew: every sentence on the guarantee is of ``common.audit.statement``, and every figure
names the entry or the record that it comes from. What no record knows is asked of a person, and marked until it is answered.
"""

from common.audit.papers.details import QUESTIONS, Details, Question, details_template
from common.audit.papers.facts import Facts, Release, RunFacts, Total
from common.audit.papers.paper import GAP, HUMAN, LEDGER, PLAN, RECORD, Item, Paper, Reference, Section, Table

__all__ = [
    "GAP",
    "HUMAN",
    "LEDGER",
    "PLAN",
    "QUESTIONS",
    "RECORD",
    "Details",
    "Facts",
    "Item",
    "Paper",
    "Question",
    "Reference",
    "Release",
    "RunFacts",
    "Section",
    "Table",
    "Total",
    "details_template",
]
