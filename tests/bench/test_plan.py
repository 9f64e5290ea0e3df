"""TOML files to runs."""

import inspect

import pytest

from neuralclust import datasets, registry
from neuralclust.bench import experiments, plan, suites


def test_tasks_are_spelled_out(tasks):
    path = tasks("""
        [[tasks]]
        data = ["digits", "usps"]
        method = ["TELL", "DCSAI"]
        params = { max_epochs = 3 }
        setting = "short"
        sweep = { lr = [0.1, 0.2] }
        seeds = 3
    """)
    runs = plan([path])
    assert len(runs) == 2 * 2 * 2 * 3
    assert runs[4].arguments == {"data": "digits", "method": "TELL", "max_epochs": 3, "lr": 0.2}
    assert (runs[4].seed, runs[4].task) == (1, "quick / digits / TELL / short, lr 0.2")
    assert len(plan([path], only="usps / TELL")) == len(plan([path], only="USPS / tell")) == 6
    assert plan([path], protocol="paper") == []


def test_a_key_is_what_decides_the_result(tasks):
    def key(**fields):
        entry = {"data": "digits", "method": "TELL", **fields}
        text = "[[tasks]]\n" + "\n".join(f"{k} = {v if k in numbers else repr(v)}" for k, v in entry.items())
        return plan([tasks(text)])[-1].key

    numbers = {"seeds", "revision", "minutes", "params"}
    assert key() == key(setting="in other words", minutes=5)
    keys = [key(), key(method="DCSAI"), key(data="usps"), key(seeds=2), key(revision=2), key(params="{lr = 0.1}")]
    assert len(set(keys)) == len(keys)


def test_tasks_may_share_runs(tasks):
    one = '[[tasks]]\ndata = "digits"\nmethod = "TELL"\n'
    runs = plan([tasks(one + 'name = "first"\n' + one + 'name = "second"\nseeds = 2')])
    assert [(run.name, run.seed) for run in runs] == [("first", 0), ("second", 0), ("second", 1)]
    assert runs[0].key == runs[1].key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[tasks]", "is not TOML"),
        ("tasks = 3", r"must consist of \[\[tasks\]\]"),
        ("[[tasks]]\nmethod = 'TELL'", "task 1: data and method are needed"),
        ("[[tasks]]\nmethod = 'TELL'\ndata = 'digits'\nseed = 3", "'seed' is not a field; those are name"),
        ("[[tasks]]\nmethod = 'TELL'\ndata = 'digits'\nseeds = true", "seeds=True has the wrong type"),
        ("[[tasks]]\nmethod = 'TELL'\ndata = 'digits'\nseeds = '3'", "seeds='3' has the wrong type"),
        ("[[tasks]]\nmethod = 'TELL'\ndata = 'digits'\nprotocol = 'fast'", "must be 'quick' or 'paper'"),
        ("[[tasks]]\nmethod = 'TELL'\ndata = 'digits'\nsweep = { lr = 1 }", "lr=1 must be a list"),
        ("[[tasks]]\nmethod = 'TELL'\ndata = 'digits'\nseeds = 0", "seeds=0 must be positive"),
        ("[[tasks]]\nmethod = 'TELL'\ndata = 'digits'\nminutes = -5", "minutes=-5 must be positive"),
        ("[[tasks]]\nmethod = 'TELL'\ndata = [1]", "must be a name or a list of names"),
        ("[[tasks]]\nmethod = 'TELL'\ndata = []", "must be a name or a list of names"),
        ("[[tasks]]\nmethod = 'TEL'\ndata = 'digits'", r"task 1: method='TEL' is not one of .*Did you mean TELL\?"),
        ("[[tasks]]\nmethod = 'TELL'\ndata = ['usps', 'digit']", r"data='digit' is not one of .*Did you mean digits\?"),
        ("[[tasks]]\nmethod = 'TELL'\ndata = 'x.npy'", r"task 1: data='x.npy' is not one of digits, iris, wine"),
        ("[[tasks]]\nmethod = 'TELL'\ndata = 'digits'\nparams = { lr = 2020-01-01 }", "not JSON serializable"),
        ("[[task]]\nmethod = 'TELL'\ndata = 'digits'", r"must consist of \[\[tasks\]\] sections, not task"),
        ("", r"must consist of \[\[tasks\]\] sections; it is empty"),
        ("[[tasks]]\nmethod = ['TELL', 'TELL']\ndata = 'digits'", "has a name twice"),
        (
            "[[tasks]]\nmethod = ['TELL', 'KMeans']\ndata = 'digits'\nparams = { max_epoch = 1 }",
            "'max_epoch' is not a parameter of TELL; .* Did you mean max_epochs",
        ),
        (
            "[[tasks]]\nmethod = ['TELL', 'KMeans']\ndata = 'digits'\nsweep = { max_epochs = [1] }",
            "'max_epochs' is not a parameter of KMeans",
        ),
        ("[[tasks]]\nmethod = 'TELL'\ndata = 'iris'\nparams = { data = 'wine' }", "data is a field of the task"),
        ("[[tasks]]\nmethod = 'TELL'\ndata = 'iris'\nparams = { random_state = 1 }", "counted from 0 by seeds"),
        ("[[tasks]]\nmethod = 'TELL'\ndata = 'iris'\nparams = { n_clusters = 4 }", "n_clusters is that of the data"),
        ("[[tasks]]\nexperiment = 'foo'", "experiment='foo' is not known"),
    ],
)
def test_a_bad_file_is_named(tasks, text, message):
    with pytest.raises(ValueError, match=message) as error:
        plan([tasks(text)])
    assert "tasks.toml" in str(error.value)


def test_the_library_s_own_tasks_can_be_run():
    runs = plan()
    assert {run.name for run in runs} >= {"quick", "classical", "curve", "online", "paper"}
    assert len({(run.task, run.seed) for run in runs}) == len(runs)
    own = inspect.signature(experiments.fit).parameters.keys()
    for run in runs:
        assert run.arguments["data"].partition(", ")[0] in datasets.names()
        if run.experiment == "fit":
            known = registry.make(run.arguments["method"], 2).get_params()
            assert run.arguments.keys() - own <= known.keys(), run.task
    assert all(path.is_file() for path in suites())
