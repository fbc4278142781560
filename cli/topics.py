"""What ``fedcart help TOPIC`` says: the few lines of the documents that somebody at a terminal needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One topic: what it is about in a few words, and its text."""

    title: str
    text: str


TOPICS = {
    "epsilon": Topic(
        "what the figure means, and what it does not",
        """\
Epsilon bounds what anybody can learn from all that was released about whether one consumer took part, and what that consumer
did. Smaller is better. At epsilon 1 the best test that accuses 1 in 100 wrongly finds less than 3 in 100 of those who took part;
at 4 it may find more than half, at 8 nearly all: then the bound alone protects nobody.
The unit is the consumer: everything that a site holds about one person. Delta is the chance that the bound does not hold.
Facts about people in general can be learnt at any epsilon. Shown figures are upper bounds, rounded up.
  fedcart audit show RUN      what was spent, against whom it holds
  fedcart simulate            what an epsilon costs in quality, on this machine
More: docs/privacy.md
""",
    ),
    "budget": Topic(
        "what a site spends, what is left, when it stops",
        """\
Each site has a ledger: an entry is on disk before anything is computed, and what is not provably given back counts as spent.
epsilon_max in policy.toml is the promise to the site's consumers. A release that would pass it is refused (exit code 3).
All runs, restarts and models about the same consumers (a scope) add up; new events of the same people are no new budget.
  fedcart site status KIT                what is spent and left
  fedcart server plan KIT RUN.toml       what a run would cost each site
  fedcart audit show RUN RUN LEDGER      several records as one account
More: docs/privacy.md
""",
    ),
    "trust": Topic(
        "whom a figure holds against: local noise and shared noise",
        """\
local    every site adds all noise itself: epsilon holds against everybody outside the site, the server included.
quorum   sites share the noise of a sum: less noise, and epsilon holds against the server and so many colluding sites as were
         named. "Alone" is what is left if no other site is honest; both figures are always shown.
Secure aggregation hides each site's contribution in the sum; it is no substitute for noise.
  fedcart simulate --trust quorum --colluders 1
More: docs/privacy.md, docs/secure-aggregation.md
""",
    ),
    "labels": Topic(
        "released, public, oracle: the three kinds of numbers",
        """\
released   part of what sites sent: noised, and charged to their budgets
public     follows from the settings, or from released sums
oracle     computed by a simulation from all data; no server ever sees it, and a deployment has none
Every number about a federation that is shown is one of the three, and labelled.
More: docs/simulate.md
""",
    ),
    "files": Topic(
        "what lies in a run folder and in a kit",
        """\
Run folder: run.toml (settings), plan.json (what the coordinator signed), metrics.jsonl (one line per round), ledgers/,
evidence/, roster.json (keys), model.safetensors and model.json, model-card.md, summary.json, report.html.
Site's kit: site.toml (who, which data), policy.toml (what is allowed), roster.json, ca.crt, identity.key and node.key (secret),
state/ (ledger, models, log: keep it as long as the data live).
Hand an auditor a folder made by `fedcart audit export RUN FOLDER`, never a run folder: a simulation's holds its consumers.
More: docs/simulate.md, docs/deploy.md
""",
    ),
    "exit-codes": Topic(
        "what the exit code says",
        """\
0     ok
1     the check failed, or the work could not be finished
2     bad usage or bad input, found before the work
3     refused, by a site's policy or budget
130   interrupted
An error is two lines on stderr, `error: what happened` and `hint: what to do`; see also `fedcart help json`.
""",
    ),
    "json": Topic(
        "--json: one value on stdout, errors too",
        """\
With --json stdout holds one JSON value and nothing else; notes and progress go to stderr. An object has "schema": 1: a name that
is there keeps its meaning until that number grows. Lists have no schema.
An error is one object, the last line of stderr:
  {"code":"bad-input","error":"no such file or folder: x","hint":"name a run folder, ...","schema":1}
code is a fixed word: bad-input, bad-config, bad-usage, refused, policy, budget, verification, failed, interrupted, unexpected, ...
The exit code is the same with and without --json.
""",
    ),
    "papers": Topic(
        "papers for a privacy officer, from the record",
        """\
  fedcart audit papers RUN                              impact assessment, Article 30, NIST SP 800-226, OpenDP's registry
  fedcart audit papers --write-details details.toml     the questions that no record answers
  fedcart audit papers RUN --details details.toml       the papers with your answers
Each figure names the ledger entry or record that it comes from. A record that does not verify gives no papers.
More: docs/papers.md
""",
    ),
    "completion": Topic(
        "let the shell complete commands and options",
        """\
bash   in ~/.bashrc:
         eval "$(_FEDCART_COMPLETE=bash_source fedcart)"
         complete -o default -o nosort -F _fedcart_completion fedcart      # file names where a file is asked for
zsh    in ~/.zshrc, after compinit:
         eval "$(_FEDCART_COMPLETE=zsh_source fedcart)"
fish   once:
         _FEDCART_COMPLETE=fish_source fedcart > ~/.config/fish/completions/fedcart.fish
""",
    ),
}
