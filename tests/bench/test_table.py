"""Tables: what is in them, how they are written, and whether the committed ones are those of the committed rows."""

import math
import re
from pathlib import Path

import pytest

from neuralclust import registry
from neuralclust.bench import Results, plan, plot, table
from neuralclust.bench.claims import claims, published_forms
from neuralclust.bench.groups import Group, cell, groups
from neuralclust.bench.owntable import own_document
from neuralclust.bench.pages import Grid, Heading, Picture, markdown, page
from neuralclust.bench.papers import FOLDER, PAPERS, counterparts, published
from neuralclust.bench.table import compare, document

ROOT = Path(__file__).parents[2]


def rows_of(runs, acc):
    """A row for each run; ``acc`` gives the accuracy, None leaves it out."""
    found = {}
    for run in runs:
        if (value := acc(run)) is not None:
            found[run.key] = {
                "key": run.key, "seed": run.seed, "acc": value, "nmi": 0.5, "ari": 0.25, "seconds": 30.0,
                "machine": "2 cores", "loss": 1 - value, "commit": "abc",
            }  # fmt: skip
    return found


@pytest.fixture
def runs(tasks):
    return plan([
        tasks("""
            [[tasks]]
            data = "mnist"
            method = ["TELL", "KMeans", "ZAC"]
            seeds = 3
            [[tasks]]
            data = "mnist"
            method = "LRR"
            impossible = "too large"
            [[tasks]]
            protocol = "paper"
            data = "mnist"
            method = "TELL"
            setting = "CNN"
            params = { variant = "paper" }
            gpu = true
        """)
    ])  # fmt: skip


def grid_after(blocks, heading):
    """The first grid below a heading."""
    at = next(i for i, block in enumerate(blocks) if isinstance(block, Heading) and block.text == heading)
    return next(block for block in blocks[at:] if isinstance(block, Grid))


def test_ours_are_beside_the_published_numbers(runs):
    rows = rows_of(runs, lambda run: {"TELL": 0.9 + run.seed / 100, "KMeans": 0.5}.get(run.arguments["method"]))
    (paper,) = (run for run in runs if run.protocol == "paper")
    del rows[paper.key]
    blocks = document(runs, rows)
    lines = grid_after([b for b in blocks[blocks.index(Heading(2, PAPERS["tell"][1])) :]], "Table 1, mnist").lines
    by_method = {}
    for line in lines:
        by_method.setdefault(line[0], []).append(line)
    assert by_method["DEC"] == [["DEC", "", "83.65 / 73.60 / 70.10", *[""] * 5, "not in the library"]]
    assert by_method["ZAC"][0][-1] == "not run yet"
    assert by_method["NMF-LP"][0][-1] == "not planned"
    assert by_method["LRR"][0][-1] == "too large"
    assert by_method["TELL"] == [
        ["TELL", "CNN", "95.16 / 88.83 / 89.66", *[""] * 5, "needs a GPU"],
        ["TELL", "", "", "91.0 ± 1.0 / 50.0 ± 0.0 / 25.0 ± 0.0", "92.0", "3", "30 s", "2 cores", "quick"],
    ]
    assert grid_after(blocks, "What is missing").lines == [
        ["quick / mnist", "0 of 3", "not run yet", "ZAC"],
        ["quick / mnist", "0 of 1", "too large", "LRR"],
        ["paper / mnist", "0 of 1", "needs a GPU", "TELL, CNN"],
    ]


def test_a_data_set_has_its_best_run_and_its_tests(runs):
    scores = {"TELL": [0.95, 0.9, 0.93], "KMeans": [0.5, 0.52, 0.48], "ZAC": [0.6]}
    quick = [run for run in runs if run.protocol == "quick"]
    rows = rows_of(quick, lambda r: dict(enumerate(scores.get(r.arguments["method"], []))).get(r.seed))
    codes = {"acc": 0.8, "nmi": 0.5, "ari": 0.25}
    for row in rows.values():
        if row["acc"] > 0.8:
            row["kmeans"], row["start"] = codes, {**codes, "acc": 0.9}
    del next(iter(rows.values()))["commit"]
    tell, _, zac, kmeans = grid_after(document(runs, rows), "mnist").lines
    assert tell[:7] == ["TELL", "", "quick", "3†", "92.7 ± 2.5", "50.0 ± 0.0", "25.0 ± 0.0"]
    assert tell[7:] == [
        "95.0",
        "30 s",
        "2 cores",
        "+12.7",
        "0.013",
        "+2.7",
        "0.208",
        "",
        "",
    ]  # the smallest loss is that of the best
    assert zac[3:5] == ["1 of 3", "60.0"]
    assert kmeans[-2:] == ["0 of 3", "0.003"]


def group(method, *values):
    rows = [{"seed": i, "acc": acc} for i, acc in enumerate(values)]
    return Group(None, method, "", rows, len(rows), "")


def test_paired_comparison():
    ours, best = group("TELL", 0.5, 0.7, 0.6), group("DCSAI", 0.6, 0.9, 0.9)
    wins, p = compare(ours, best)
    assert wins == "0 of 3"
    t = -0.2 / (0.1 / math.sqrt(3))  # mean and deviation of the differences -.1, -.2, -.3
    expected = 1 + t / math.sqrt(2 + t * t)  # Student's t with two degrees of freedom, both sides
    assert float(p) == pytest.approx(expected, abs=5e-4)
    assert compare(group("TELL", 0.5, 0.7), best) == ("", "")
    assert compare(group("TELL", 0.5), best) == ("", "")  # one seed of several
    assert compare(group("ZAC", 0.5), best)[0] == "0 of 3"  # no chance: one row for all
    assert compare(group("ZAC", 0.5), group("WeightedLinkage", 0.6)) == ("", "")
    assert compare(group("TELL", 0.5, 0.5, 0.5), group("DCSAI", 0.7, 0.7, 0.7)) == ("0 of 3", "")


def test_a_loss_that_is_no_number_is_never_the_smallest(runs):
    rows = rows_of([run for run in runs if run.protocol == "quick"][:3], lambda run: 0.5 + run.seed / 10)
    first, second, _ = rows.values()
    first["loss"], second["loss"] = math.nan, -math.inf
    (line,) = grid_after(document(runs, rows), "mnist").lines
    assert line[7] == "70.0"


def test_failed_seeds_are_told(runs):
    rows = rows_of([runs[0]], lambda run: 0.9)
    rows[runs[1].key] = {"key": runs[1].key, "seed": 1, "skipped": "ValueError: no luck", "failed": True}
    blocks = document(runs, rows)
    assert grid_after(blocks, "mnist").lines[0][3] == "1 of 3"
    missing = grid_after(blocks, "What is missing").lines
    assert ["quick / mnist", "1 of 3", "ValueError: no luck", "TELL"] in missing
    assert ["quick / mnist", "0 of 3", "not run yet", "KMeans; ZAC"] in missing


def test_skipped_runs_give_their_reason(runs):
    rows = {runs[0].key: {"key": runs[0].key, "skipped": "over 30 minutes on 2 cores", "minutes": 30}}
    missing = {line[-1]: line[2] for line in grid_after(document(runs, rows), "What is missing").lines}
    assert missing["TELL"] == "over 30 minutes on 2 cores"


def test_markdown_and_html_say_the_same(runs):
    blocks = [Heading(2, "A & B"), "Some `code`.", Grid(["x", "y"], [["1", "<2"]]), Grid(["nothing"], [])]
    assert markdown(blocks) == "## A & B\n\nSome `code`.\n\n| x | y |\n| --- | --- |\n| 1 | <2 |\n"
    text = page(blocks)
    assert "<h2>A &amp; B</h2>" in text
    assert "<td>&lt;2</td>" in text
    assert not re.search(r"(src|href)=", text)  # nothing from elsewhere
    picture = [Picture("figures/a.png", "What <is> seen.")]
    assert markdown(picture) == "![What <is> seen.](figures/a.png)\n\nWhat <is> seen.\n"
    assert '<img src="figures/a.png" alt="What &lt;is&gt; seen.">' in page(picture)


def test_every_picture_has_a_caption(runs, tmp_path):
    for name in ("maps", "of_someone_else"):
        (tmp_path / f"{name}.png").touch()
    found = plot.drawn(tmp_path, tmp_path.parent)
    assert found == [Picture(f"{tmp_path.name}/maps.png", plot.CAPTIONS["maps"])]
    assert [block for block in document(runs, {}, found) if isinstance(block, Picture)] == found


@pytest.mark.parametrize("paper", PAPERS)
def test_published_numbers(paper):
    lines = published(paper)
    scores = ("acc", "nmi", "ari", "precision", "ami", "homogeneity", "completeness", "v_measure")
    for line in lines:
        assert line["table"]
        assert line["data"]
        assert all(-1 <= float(line[name]) <= 100 for name in scores if line[name])
    keys = [(line["table"], line["data"], line["method"], line["setting"]) for line in lines]
    assert len(set(keys)) == len(keys)
    assert PAPERS[paper][0] in {line["method"] for line in lines}


def test_published_numbers_are_those_of_the_papers():
    def acc(paper, number, data, method, setting=""):
        (line,) = (
            line
            for line in published(paper)
            if (line["table"], line["data"], line["method"], line["setting"]) == (number, data, method, setting)
        )
        return tuple(float(line[name]) for name in ("acc", "nmi", "ari") if line[name])

    assert acc("tell", "1", "mnist", "TELL", "CNN") == (95.16, 88.83, 89.66)
    assert acc("kmeansnet", "1", "mnist", "KMeansNet", "FCN") == (87.76, 78.70, 76.71)
    assert acc("dcsai", "III", "mnist", "DCSAI", "HOE") == (87.16, 75.50, 74.27)
    assert acc("sscnet", "1", "usps", "SSCNet") == (98.90, 94.82)
    assert acc("ncsc", "1", "mnist", "NCSC") == (94.09, 86.12, 87.52)


def test_counterparts_are_printed_lines_and_tasks_of_ours():
    ours = {(g.run.arguments["data"], g.run.name, g.method, g.setting) for g in groups(plan(), {})}
    ours |= {(*key[:3], f"{key[3]}, from P2") for key in ours if key[2] == "DCSAI"}
    reached = 0
    for paper in PAPERS:
        printed = [(line["table"], line["method"], line["setting"]) for line in published(paper)]
        for line, counterpart in counterparts(paper).items():
            assert printed.count(line) == 1  # of one data set
            assert counterpart[:4] in ours
            reached += 1
    with (FOLDER / "counterparts.csv").open() as file:
        assert reached == len(file.readlines()) - 1


def test_a_sweep_is_beside_the_table_about_its_parameter():
    runs = [run for run in plan() if run.name == "two-stage"]
    rows = rows_of(runs, lambda run: 0.9 if run.arguments["end_to_end"] else 0.8)
    blocks = document(runs, rows)
    lines = grid_after(blocks[blocks.index(Heading(2, PAPERS["tell"][1])) :], "Table 4, mnist").lines
    scores = {line[1]: line[3] for line in lines if line[0] == "TELL"}
    assert scores["FCN, TwoStage"].startswith("digits: 80.0 ± 0.0")
    assert scores["FCN"].startswith("digits: 90.0 ± 0.0")
    assert scores["CNN"] == ""
    remarks = {line[1]: line[-1] for line in lines if line[0] == "TELL"}
    assert remarks["FCN, TwoStage"] == "quick; spectral start"
    assert remarks["FCN"] == "quick; spectral start"


def test_the_main_table_has_all_of_the_proposed_method():
    runs = [run for run in plan() if run.task == "quick / mnist / DCSAI"]
    blocks = document([*runs, *plan(only="paper")], rows_of(runs, lambda run: 0.9))
    of_paper = blocks[blocks.index(Heading(2, PAPERS["dcsai"][1])) :]
    ours = [line for line in grid_after(of_paper, "Table III, mnist").lines if line[3]]
    assert [line[:3] for line in ours] == [["DCSAI", "", ""]]
    assert ours[0][3].startswith("90.0 ± 0.0 / ")
    assert all(line[3] == "" for line in grid_after(of_paper, "Figure 1, mnist").lines)


def test_claims_of_the_papers_are_tested_on_our_rows():
    names = {"two-stage": ("end_to_end", True), "optimiser": ("optimizer", "adadelta")}
    runs = [run for run in plan() if run.name in names and run.arguments["method"] == "TELL"]

    def acc(run):
        parameter, value = names[run.name]
        better = run.arguments[parameter] == value
        return 0.8 + run.seed / 100 + (0.1 + run.seed / 500 if better == (run.name == "two-stage") else 0)

    found = groups(runs, rows_of(runs, acc))
    grid = next(block for block in claims(found) if isinstance(block, Grid))
    told = {(line[1], line[3]): line for line in grid.lines}
    assert told["end to end better than in two stages", "93.25 / 80.68"][4:] == [
        "+12.6", "digits", "91.2 ± 1.2 / 81.0 ± 1.0", "+10.2", "< 0.001", "yes",
    ]  # fmt: skip
    assert told["AdaDelta better than Adam", "95.16 / 93.75"][-1] == "no"
    assert told["gradients to be normalised", "95.16 / 81.08"][-3:] == ["+0.0", "", "not told"]
    assert "of 4, 1 hold here, 1 do not" in next(block for block in claims(found) if isinstance(block, str))
    assert claims(groups(runs, {})) == []


def test_published_forms_stand_beside_the_defaults():
    runs = [r for r in plan() if r.arguments.get("data") == "digits" and r.setting in ("", "as printed")]
    methods = ("TELL", "NCSC")
    found = rows_of(
        [run for run in runs if run.arguments.get("method") in methods],
        lambda run: 0.9 + run.seed / 100 if not run.setting else 0.3 + run.seed / 20,
    )
    *_, grid = published_forms(groups(runs, found))
    assert [line[0] for line in grid.lines] == list(methods)
    assert grid.lines[0][1:] == ["digits", "40.0 ± 7.9", "50.0", "92.0 ± 1.6", "+52.0", "< 0.001", "5"]
    assert published_forms(groups(runs, {})) == []


def test_baselines_of_the_papers_are_named_as_ours():
    others = {line["method"] for paper in PAPERS for line in published(paper)} - registry.ALL.keys()
    known = {"DEC", "IDEC", "DCN", "VaDE", "JULE", "SpectralNet", "DSC-Net", "k-SCN", "DAC", "ClusterGAN", "InfoGAN"}
    assert others - known <= {"DSC", "CSC", "IMSAT", "IIC"}


def test_the_other_assignment_of_a_method_has_its_own_line(tasks):
    task = (
        '[[tasks]]\ndata = "mnist_test"\nmethod = "DCSAI"\nsetting = "HOE"\nparams = { metric = "cosine" }\nseeds = 2'
    )
    runs = plan([tasks(task)])
    rows = rows_of(runs, lambda run: 0.8 + run.seed / 10)
    for row in rows.values():
        row.update(precision=0.7, p2={"acc": row["acc"] - 0.3, "nmi": 0.4, "ari": 0.1, "precision": 0.6})
    blocks = document(runs, rows)
    lines = {line[1]: line for line in grid_after(blocks, "mnist_test").lines}
    assert lines["HOE"][4] == "85.0 ± 7.1"
    assert lines["HOE, from P2"][4] == "55.0 ± 7.1"
    grid = grid_after(blocks, "Table III, mnist_test")
    assert grid.header[2].endswith("ARI / precision")
    ours = {line[1]: line[3] for line in grid.lines if line[3]}
    assert ours["HOE, from P2"] == "55.0 ± 7.1 / 40.0 ± 0.0 / 10.0 ± 0.0 / 60.0 ± 0.0"
    del rows[runs[0].key]["precision"]  # as in rows of earlier code
    ours = {line[1]: line[3] for line in grid_after(document(runs, rows), "Table III, mnist_test").lines if line[3]}
    assert ours["HOE"].endswith(" / 70.0 (1)")
    assert "HOE, from P2" not in str(grid_after(blocks, "What is missing").lines)


def test_the_overview_has_a_shorter_run_where_there_is_no_usual_one(tasks):
    task = '[[tasks]]\ndata = "mnist"\nmethod = "{}"\nsetting = "{}"\nparams = {}\nseeds = 3'
    short, rows, views = "{ max_epochs = 5 }", "{ rows = 10000 }", '{ augment = "digits" }'
    runs = plan([
        tasks("\n".join([
            task.format("SSCNet", "10,000 rows", rows),
            task.format("SSCNet", "5 epochs", short),
            task.format("TELL", "5 epochs", short),
            task.format("TELL", "augmented", views),
            task.format("TELL", "", "{}"),
            task.format("NCSC", "augmented", views),
        ]))
    ])  # fmt: skip
    acc = {"10,000 rows": 0.1, "5 epochs": 0.2, "augmented": 0.9, "": 0.5}
    grid = table.overview(groups(runs, rows_of(runs, lambda run: acc[run.setting])))
    assert grid.lines == [["TELL", "50.0 ± 0.0"], ["SSCNet", "20.0 ± 0.0*"]]


def test_cells():
    assert cell([]) == ""
    assert cell([0.5]) == "50.0"
    assert cell([0.5, 0.7]) == "60.0 ± 14.1"


def test_the_committed_table_is_that_of_the_committed_rows():
    rows = Results(ROOT / "benchmarks" / "results.jsonl").read()
    assert rows
    pictures = plot.drawn(ROOT / "docs" / "figures", ROOT / "docs")
    assert len(pictures) == len(list((ROOT / "docs" / "figures").glob("*.png")))
    text = markdown(document(plan(), rows, pictures))
    assert (ROOT / "docs" / "results.md").read_text() == text, "run: make results"


def test_the_committed_readme_is_that_of_the_committed_rows(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import report

    text = (ROOT / "README.md").read_text()
    assert report.with_measured(text, Results(ROOT / "benchmarks" / "results.jsonl").read()) == text, (
        "run: make results"
    )


def test_how_well_loss_and_silhouette_choose(runs):
    accs = {0: 0.5, 1: 0.9, 2: 0.7}
    rows = rows_of(runs, lambda run: accs[run.seed])
    for row in rows.values():
        row["silhouette"] = -row["acc"]  # a criterion that is always wrong
    fits = [g for g in groups(runs, rows) if g.method == "TELL"]
    by_method, tasks = table.choices(fits)
    assert tasks.lines[0] == ["mnist", "TELL", "", "3", "70.0 ± 20.0", "90.0", "50.0", "90.0"]
    gains = [str(len(tasks.lines)), "+20.0", "-20.0", "+20.0"]
    assert by_method.lines == [["TELL", *gains], ["all", *gains]]
    del rows[runs[0].key]["silhouette"]
    assert not any(grid.lines for grid in table.choices([g for g in groups(runs, rows) if g.method == "TELL"]))


def test_choices_are_in_the_order_of_data_and_methods():
    runs = plan()
    rows = rows_of(runs, lambda run: 0.5)
    for row in rows.values():
        row["silhouette"] = 0.5
    _, tasks = table.choices([g for g in groups(runs, rows) if g.run.name == "quick"])
    pairs = [tuple(line[:2]) for line in tasks.lines]
    assert len({data for data, _ in pairs}) > 5
    data = list(dict.fromkeys(data for data, _ in pairs))
    assert pairs == sorted(pairs, key=lambda pair: (data.index(pair[0]), list(registry.ALL).index(pair[1])))


def test_every_number_of_blocks_is_in_one_table():
    runs = plan(only="usps / SSCNet")
    rows = rows_of(runs, lambda run: 0.9)
    lines = grid_after(document(runs, rows), "blocks").lines
    assert [line[2] for line in lines] == ["0 blocks", "", *(f"n_blocks {n}" for n in range(2, 7))]


def test_tasks_of_ones_own_have_their_experiments_and_failures(squares):
    runs = plan([squares])
    rows = {run.key: {"key": run.key, "seed": run.seed, "acc": 0.5 + run.seed, "note": "x"} for run in runs[:4]}
    rows[runs[4].key] = {"key": runs[4].key, "seed": 0, "skipped": "ValueError: no luck", "failed": True}
    text = markdown(own_document(runs, rows))
    assert "4 of 6 runs have a result" in text
    assert "| squares / x 1 | 2† | acc 1 |" in text
    assert "| squares | 0 of 2 | ValueError: no luck | x 3 |" in text
    assert "published" not in text
