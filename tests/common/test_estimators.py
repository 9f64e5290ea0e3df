"""The contract of every method in the registry."""

import json
import pickle
import random
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import neuralclust
from neuralclust.callbacks import EarlyStopping, HistoryLog, ScoreEpochs
from neuralclust.runtime import draw_seeds
from tests.conftest import small


def fit_quietly(model, X, y=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y)


def weights(model):
    return {name: value.numpy().tobytes() for name, value in model.module_.state_dict().items()}


def test_scikit_learn_checks(method, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # else one check skips itself
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Graphs take most of a small fit: one method shows that the usual start passes.
        start = {} if method == "KMeansNet" else {"init": "k-means"}
        # Four clusters: the two sparse checks expect four columns of probabilities.
        quick = small(method, 4, pretrain_epochs=3, max_epochs=3, **start)
        results = check_estimator(quick, on_fail=None, on_skip=None)
    failed = [(r["check_name"], r["status"], r["exception"]) for r in results if r["status"] != "passed"]
    assert failed == []
    assert len(results) == 51  # a battery can shrink to one check without a word


def test_finds_easy_clusters(method, easy):
    X, y = easy
    model = small(method).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.9


def test_fitted_attributes(method, easy):
    X, _ = easy
    model = small(method).fit(X)
    assert model.labels_.shape == (240,)
    assert model.cluster_centers_.shape == (3, model.module_.autoencoder.embed_dim)
    assert model.n_features_in_ == 16
    assert model.n_iter_ == 10
    assert model.history_[-1]["epoch"] == 9
    assert {type(row) for row in model.history_} == {dict}
    assert {type(value) for row in model.history_ for value in row.values()} == {int, str, float}
    assert model.score(X) == pytest.approx(-model.loss_)
    assert isinstance(model.module_, neuralclust.nn.ClusterModule)


def test_loss_falls(method, easy):
    # before an autoencoder can reconstruct, its codes still move too much for any targets to be agreed on
    model = small(method, pretrain_epochs=40).fit(easy[0])
    for stage in {row["stage"] for row in model.history_}:
        losses = [row["loss"] for row in model.history_ if row["stage"] == stage]
        assert losses[-1] < losses[0]


def test_predictions_agree(method, easy):
    X, _ = easy
    model = small(method).fit(X)
    assert np.array_equal(model.predict(X), model.labels_)
    proba = model.predict_proba(X)
    assert proba.shape == (240, 3)
    assert np.allclose(proba.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(proba.argmax(axis=1), model.labels_)
    assert np.array_equal(small(method).fit_predict(X), model.labels_)
    assert np.array_equal(small(method).fit_transform(X), model.transform(X))


def test_a_row_does_not_depend_on_its_company(method, easy):
    X, _ = easy
    model = small(method).fit(X)
    for i in (0, 7, 239):
        assert model.predict(X[i : i + 1])[0] == model.labels_[i]
        assert np.allclose(model.transform(X[i : i + 1])[0], model.transform(X)[i], atol=1e-7)


def test_same_seed_same_bits(method, easy):
    first, second, other = (small(method, random_state=seed).fit(easy[0]) for seed in (1, 1, 2))
    assert weights(first) == weights(second)
    assert first.history_ == second.history_
    assert weights(first) != weights(other)


def test_global_random_states_are_left_alone(method, easy):
    X, _ = easy
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    model = small(method, random_state=None).fit(X)
    model.predict(X)
    model.partial_fit(X, train_encoder=True)
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_labels_never_reach_training(method, easy):
    X, y = easy
    poisons = [None, y, 2 - y, np.full(240, np.nan), "not labels at all"]
    fits = [small(method).fit(X, poison) for poison in poisons]
    assert len({str(weights(model)) for model in fits}) == 1


def test_parameters_are_not_changed_by_fit(method, easy):
    model = small(method, encoder=torch.nn.Linear(16, 4))
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    model.fit(easy[0])
    assert all(torch.equal(before[name], value) for name, value in model.encoder.state_dict().items())
    assert model.cluster_centers_.shape == (3, 4)


def test_pickle_and_clone(method, easy):
    X, _ = easy
    model = small(method).fit(X).partial_fit(X)  # with a live optimiser, which holds closures
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict(X), model.predict(X))
    again.partial_fit(X)
    assert not hasattr(clone(model), "module_")


def test_pipeline_and_set_output(method, easy):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(easy[0], columns=[f"f{i}" for i in range(16)])
    pipe = make_pipeline(StandardScaler(), small(method)).set_output(transform="pandas")
    out = pipe.fit(frame).transform(frame)
    name = method.lower()
    assert list(out.columns) == [f"{name}{i}" for i in range(pipe[-1].module_.autoencoder.embed_dim)]
    assert list(pipe[-1].feature_names_in_) == list(frame.columns)
    assert pipe.predict(frame).shape == (240,)


def test_grid_search_by_score(method, easy):
    search = GridSearchCV(small(method, pretrain_epochs=2, max_epochs=2), {"embed_dim": [2, 4]}, cv=2)
    search.fit(easy[0])
    assert search.best_params_["embed_dim"] in (2, 4)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_restarts_are_chosen_by_loss(method, easy):
    X, _ = easy
    model = small(method, n_init=3, pretrain_epochs=2, max_epochs=2, embed_dim=2).fit(X)
    assert {row["init"] for row in model.history_} == {0, 1, 2}
    # The same three runs, each on its own: a run depends on its seed alone.
    singles = []
    for seed in draw_seeds(0, 3):
        single = small(method, pretrain_epochs=2, max_epochs=2, embed_dim=2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("neuralclust.fitting.draw_seeds", lambda *_, seed=seed: [seed])
            singles.append(single.fit(X).loss_)
    assert model.loss_ == pytest.approx(min(singles), rel=1e-6)
    assert max(singles) > min(singles)


def test_tolerance_ends_training(method, easy):
    model = small(method, pretrain_epochs=500, max_epochs=500, tol=0.5).fit(easy[0])
    stages = [row["stage"] for row in model.history_]
    if "fit" in stages:
        assert stages.count("fit") < 500
    if method not in ("DCSAI", "NCSC"):  # their tolerance is of rows that change cluster
        assert stages.count("pretrain") < 500


def test_early_stopping_stops(method, easy):
    # Nothing improves by 1000, so each stage ends after the first epoch and two more.
    model = small(method).set_callbacks(EarlyStopping(2, min_delta=1000.0)).fit(easy[0])
    epochs = [(row["stage"], row["epoch"]) for row in model.history_]
    stages = dict.fromkeys(stage for stage, _ in epochs)
    assert epochs == [(stage, epoch) for stage in stages for epoch in range(3)]


def test_what_is_no_callback_is_refused():
    for wrong in ([EarlyStopping()], EarlyStopping):
        with pytest.raises(TypeError, match=r"one by one: set_callbacks\(.*\); got .*EarlyStopping"):
            small("TELL").set_callbacks(wrong)


def test_early_stopping_by_a_term_of_one_stage(easy):
    X, _ = easy
    model = small("TELL").set_callbacks(EarlyStopping(2, min_delta=1000.0, monitor="clu")).fit(X)
    stages = [row["stage"] for row in model.history_]
    assert (stages.count("pretrain"), stages.count("fit")) == (10, 3)
    for params in ({}, {"max_epochs": 0}):
        lost = small("TELL", **params).set_callbacks(EarlyStopping(monitor="clue"))
        with pytest.raises(ValueError, match=r"monitor='clue' is not a term of this fit, which has \[.*'loss'"):
            lost.fit(X)
        assert not hasattr(lost, "history_")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda X, y: EarlyStopping("a"), ValueError, "patience='a'"),
        (lambda X, y: EarlyStopping(0), ValueError, "patience=0"),
        (lambda X, y: EarlyStopping(min_delta="b"), ValueError, "min_delta='b'"),
        (lambda X, y: EarlyStopping(min_delta=np.nan), ValueError, "min_delta=nan"),
        (lambda X, y: EarlyStopping(monitor=3), ValueError, "monitor=3"),
        (lambda X, y: EarlyStopping(monitor="stage"), ValueError, "monitor='stage'"),
        (lambda X, y: ScoreEpochs(X, y, {}, every=0), ValueError, "every=0"),
        (lambda X, y: ScoreEpochs(X, y, [adjusted_rand_score]), TypeError, "must be a dict of names"),
        (lambda X, y: ScoreEpochs(X, y, {"ari": "ari"}), TypeError, "must be a dict of names"),
        (lambda X, y: ScoreEpochs(X, y[:-1], {}), ValueError, "X has 240 rows, but y has 239 entries"),
    ],
)
def test_callbacks_are_checked_when_they_are_made(easy, make, error, message):
    with pytest.raises(error, match=message):
        make(*easy)


def test_callbacks_log_and_score(method, easy, tmp_path):
    X, y = easy
    scores = ScoreEpochs(X, y, {"ari": adjusted_rand_score}, every=4)
    model = small(method).set_callbacks(HistoryLog(tmp_path / "log" / "h.jsonl"), scores).fit(X)
    lines = (tmp_path / "log" / "h.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == model.history_
    if any(row["stage"] == "fit" for row in model.history_):
        assert [row["epoch"] for row in scores.scores_] == [0, 4, 8]
        assert scores.scores_[-1]["ari"] > 0.9
    else:
        assert scores.scores_ == []  # no clusters before the end


def test_progress_bar_of_scikit_learn(method, easy, capsys):
    pytest.importorskip("rich")
    from neuralclust.callbacks import ProgressBar

    small(method).set_callbacks(ProgressBar()).fit(easy[0])
    shown = capsys.readouterr()
    assert method in shown.out + shown.err  # the command line moves rich's console to standard error, for good


def diverging(method):
    """Settings with which weights overflow. NCSC's codes have no scale: gradient descent ends before they do."""
    return {"lr": 1e38, "optimizer": "adam" if method == "NCSC" else "sgd"}


def test_diverging_training_is_named_and_undone(method, easy):
    model = small(method, **diverging(method))
    with pytest.warns(ConvergenceWarning, match="Non-finite"):
        model.fit(easy[0])
    assert all(torch.isfinite(value).all() for value in model.module_.state_dict().values())
    assert np.array_equal(model.predict(easy[0]), model.labels_)


def test_streams_of_chunks_come_close_to_fit(method, easy):
    X, y = easy
    model = small(method)
    for chunk in np.array_split(np.random.default_rng(0).permutation(240), 4):
        assert model.partial_fit(X[chunk]) is model
        assert model.labels_.shape == (60,)
    assert adjusted_rand_score(y, model.predict(X)) > 0.9


def test_a_stream_moves_the_centres_and_on_request_the_encoder(method, easy):
    X, _ = easy
    model = small(method).fit(X)

    def encoder():
        return next(model.module_.autoencoder.parameters()).detach().clone()

    centers, code = model.cluster_centers_, encoder()
    model.partial_fit(X[:64] + 0.2)
    assert np.abs(model.cluster_centers_ - centers).max() > 1e-6
    assert torch.equal(code, encoder())
    model.partial_fit(X[:64], train_encoder=True)
    assert not torch.equal(code, encoder())


def test_the_first_rows_of_a_stream_do_not_decide_how_fast_the_encoder_learns(method, easy):
    X, _ = easy
    rates = []
    for rows in (X[:1], X):
        model = small(method, batch_size=None).fit(X).partial_fit(rows, train_encoder=True)
        rates.append([group["lr"] for group in model._online[1].optimizers[0].param_groups])
    assert rates[0] == rates[1]


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_units_do_not_matter(method, scale, easy):
    X, _ = easy
    model = small(method).fit(X.astype(np.float64) * scale)
    assert adjusted_rand_score(small(method).fit(X).labels_, model.labels_) > 0.95
    assert np.array_equal(model.predict(X.astype(np.float64) * scale), model.labels_)


GRAPH_START = ["TELL", "KMeansNet", "DCSAI"]


def test_one_thread_and_two_give_the_same_model(method, easy):
    X, _ = easy
    one = small(method).fit(X)
    try:
        torch.set_num_threads(2)
        two = small(method).fit(X)
        codes = two.transform(X)
    finally:
        torch.set_num_threads(1)
    assert np.array_equal(one.labels_, two.labels_)
    # Sums in another order: the rounding grows in the 200 steps more in which an encoder learns a graph's clusters.
    np.testing.assert_allclose(one.transform(X), codes, atol=1e-5 if method in GRAPH_START else 1e-6)


CENTERED = ["TELL", "KMeansNet", "DCSAI", "AEKMeans"]


def rotating(angle, n, seed, only=None):
    """Rows of three clusters on a circle that turns: (n, 8), and their classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n) if only is None else np.full(n, only)
    around = 2 * np.pi * y / 3 + angle
    X = 0.15 * rng.normal(size=(n, 8))
    X[:, :3] += np.column_stack([np.cos(around), np.sin(around), np.ones(n)])
    return X.astype(np.float32), y


@pytest.mark.parametrize("encoder", ["mlp", None])
@pytest.mark.parametrize("name", CENTERED)
def test_centres_follow_clusters_that_move(name, encoder, tmp_path):
    """Each cluster ends where the next one was; without forgetting its past all labels would be wrong."""
    X, y = rotating(0.0, 512, seed=0)
    model = small(name, encoder=encoder).fit(X)
    cluster = np.array([np.bincount(model.labels_[y == j]).argmax() for j in range(3)])
    right = []
    for step in range(1, 41):
        X, y = rotating(2 * np.pi / 3 * step / 40, 128, seed=step)
        right.append((model.predict(X) == cluster[y]).mean())
        if step == 20:  # a stream may be cut
            model.save(tmp_path / "model")
            model = neuralclust.load(tmp_path / "model")
        model.partial_fit(X, forgetting=0.3)
    assert np.mean(right) > 0.98
    assert (model.predict(X) == cluster[y]).mean() > 0.98


def test_forgetting_moves_centres_and_nothing_else(easy):
    X, _ = easy
    means = small("AEKMeans", encoder=None).fit(X)
    counts = means.module_.head.counts.clone()
    means.partial_fit(X[:50], forgetting=0.001)
    assert torch.equal(means.module_.head.counts, counts)
    learned = small("KMeansNet", encoder=None, variant="paper", max_epochs=50, lr=0.1).fit(X)
    learned.partial_fit(X, forgetting=1e-9)
    assert np.array_equal(learned.predict(X), learned.labels_)
    model = small("TELL", encoder=None, batch_size=240).fit(X)
    before = model.cluster_centers_
    model.partial_fit(X[:1], forgetting=0.5)  # a 240th of a batch
    assert 0 < np.abs(model.cluster_centers_ - before).max() < 0.02


@pytest.mark.parametrize("name", CENTERED)
def test_a_stream_of_one_cluster_moves_its_centre_alone(name):
    X, _ = rotating(0.0, 512, seed=0)
    model = small(name, encoder=None).fit(X)
    new, _ = rotating(0.2, 100, seed=1, only=1)
    (cluster,) = set(model.predict(new))
    before = model.cluster_centers_
    model.partial_fit(new, forgetting=0.1)
    moved = np.abs(model.cluster_centers_ - before).max(axis=1)
    assert moved[cluster] > 0.01
    assert np.delete(moved, cluster).max() < 1e-6


def test_no_cluster_is_invented(method):
    """Rows of a kind not seen before join a cluster there is."""
    X, _ = rotating(0.0, 512, seed=0)
    model = small(method, encoder=None).fit(X)
    far = X[:100] * np.float32([1, 1, -5, 1, 1, 1, 1, 1])
    for _ in range(3):
        model.partial_fit(far)
    assert set(model.labels_) <= set(range(3))
    assert model.cluster_centers_.shape[0] == 3


def test_forgetting_is_checked(method, easy):
    X, _ = easy
    model = small(method)
    for wrong in (0.0, 1.5, -1, "much", float("nan")):
        with pytest.raises(ValueError, match="forgetting="):
            model.partial_fit(X, forgetting=wrong)
    assert not hasattr(model, "module_")
    if method in CENTERED:
        model.partial_fit(X, forgetting=0.5).partial_fit(X, forgetting=1)
    else:
        with pytest.raises(ValueError, match="a classifier decides"):
            model.partial_fit(X, forgetting=0.5)
        assert not hasattr(model, "module_")


def test_a_diverging_stream_is_undone(method, easy):
    X, _ = easy
    model = small(method).fit(X).set_params(**diverging(method))
    labels = model.predict(X)
    with pytest.warns(ConvergenceWarning, match="partial_fit"):
        model.partial_fit(np.tile(X, (10, 1)), train_encoder=True)
    assert all(torch.isfinite(value).all() for value in model.module_.state_dict().values())
    assert model.predict(X).shape == labels.shape


def test_features_as_codes(method, easy):
    X, y = easy
    model = small(method, encoder=None).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.9
    assert model.transform(X).shape == X.shape
    assert {row["stage"] for row in model.history_} <= {"fit"}
    model.partial_fit(X, train_encoder=True)  # nothing to train there, and nothing to fail


@pytest.mark.parametrize("encoder", ["mlp", "conv"])
def test_images(method, images, encoder):
    X, y = images
    model = small(method, 2, encoder=encoder, pretrain_epochs=40, batch_size=20).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.9
    assert np.array_equal(model.predict(X[:, None]), model.labels_)  # (n, h, w) is (n, 1, h, w)
    assert model.reconstruct_centers().shape == (2, 9, 7)
    with pytest.raises(ValueError, match=r"\(1, 7, 9\).*\(1, 9, 7\)"):
        model.predict(X.transpose(0, 2, 1))
    with pytest.raises(ValueError, match="Reshape X"):
        model.predict(X.reshape(60, -1))


def test_centres_come_back_in_the_units_of_the_data(method, easy):
    X = easy[0] * 1000 + 5000
    model = small(method, pretrain_epochs=60).fit(X)
    centers = model.reconstruct_centers()
    means = np.stack([X[model.labels_ == j].mean(axis=0) for j in range(3)])
    assert np.abs(centers - means).max() < 0.25 * (X.max() - X.min())


def test_own_network_and_decoder(method, easy):
    X, y = easy
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = neuralclust.nn.Autoencoder(torch.nn.Linear(16, 6), torch.nn.Linear(6, 16), embed_dim=6)
    model = small(method, encoder=net, pretrain_epochs=60).fit(X)
    assert model.cluster_centers_.shape == (3, 6)
    assert adjusted_rand_score(y, model.labels_) > 0.9


def test_given_centres(method, easy):
    X, _ = easy
    init = small(method, encoder=None).fit(X).cluster_centers_
    model = small(method, encoder=None, init=init, max_epochs=0).fit(X)
    assert np.allclose(model.cluster_centers_, init, atol=1e-6)
    with pytest.raises(ValueError, match=r"\(3, 16\) is needed"):
        small(method, encoder=None, init=init[:2]).fit(X)


def test_not_fitted(method, easy):
    for use in ("predict", "predict_proba", "transform", "score"):
        with pytest.raises(NotFittedError):
            getattr(small(method), use)(easy[0])
    with pytest.raises(NotFittedError):
        small(method).reconstruct_centers()


def test_one_cluster_and_as_many_as_rows(method, easy):
    X, _ = easy
    assert set(small(method, 1).fit(X).labels_) == {0}
    model = fit_quietly(small(method, 12), X[:12])
    assert model.labels_.shape == (12,)


def test_too_few_distinct_rows_is_a_warning(method, easy):
    X = np.repeat(easy[0][:2], 20, axis=0)
    with pytest.warns(ConvergenceWarning, match="fewer distinct rows"):
        model = small(method, 4).fit(X)
    assert set(model.labels_) < set(range(4))
    with pytest.warns(ConvergenceWarning, match="empty"):
        small(method, 3).fit(np.ones((20, 4)))


def test_clusters_that_were_empty_are_told_from_those_that_were_cut(easy):
    """Of four centres one is far from all rows: it gets half of a cluster that was not empty."""
    X, _ = easy
    init = np.vstack([small("AEKMeans", encoder=None).fit(X).cluster_centers_, np.full((1, 16), 99.0)])
    match = r"Clusters \[3\] were empty after training.*: \[[012]\] were cut in two. Fewer n_clusters, or more epochs"
    with pytest.warns(ConvergenceWarning, match=match) as seen:
        small("AEKMeans", 4, encoder=None, init=init, max_epochs=0).fit(X)
    assert seen[0].filename == __file__  # the line that calls fit, not one of ours


def test_bfloat16_trains(method, easy):
    X, y = easy
    model = small(method, precision="bfloat16", pretrain_epochs=30).fit(X)
    assert model.transform(X).dtype == np.float32
    assert adjusted_rand_score(y, model.labels_) > 0.9


def test_fits_in_threads_are_those_of_one_thread(easy):
    """torch has one random state for all threads: fits take turns, and leave it as it was."""
    X, _ = easy
    seeds = range(4)
    alone = [weights(small("TELL", random_state=seed).fit(X)) for seed in seeds]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: weights(small("TELL", random_state=seed).fit(X)), seeds))
    assert together == alone
    assert torch.equal(torch.get_rng_state(), before)


def test_parameters_set_after_the_fit_leave_what_was_fitted(method, easy):
    X, _ = easy
    model = small(method).fit(X)
    score = model.score(X)
    for name, value in (("n_clusters", 7), ("clustering_weight", 9.0), ("reconstruction_weight", 0.1), ("tau", 0.01)):
        if name in model.get_params():
            model.set_params(**{name: value})
    assert model.score(X) == score
    if method == "TELL":
        assert model.explain(X).runner_up.max() == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_clusters", 5), ("embed_dim", 3), ("hidden_layer_sizes", (7,)), ("encoder", None), ("variant", "paper")],
)
def test_a_stream_cannot_change_the_network(easy, name, value):
    X, _ = easy
    model = small("TELL").fit(X)
    before, was = weights(model), model.get_params()[name]
    with pytest.raises(ValueError, match=rf"^{name}=.* was set after the fit.* Set it back, or fit anew"):
        model.set_params(**{name: value}).partial_fit(X)
    assert weights(model) == before
    model.set_params(**{name: list(was) if name == "hidden_layer_sizes" else was, "lr": 1e-4}).partial_fit(X)


def test_every_call_of_partial_fit_draws_other_views(easy):
    X, _ = easy
    drawn = []

    def noise(x):
        drawn.append(torch.rand(()).item())
        return x

    model = small("TELL", augment=noise, random_state=0).fit(X)
    drawn.clear()
    for _ in range(3):
        model.partial_fit(X[:32], train_encoder=True)
    assert len(set(drawn)) == len(drawn) >= 3
    first, drawn[:] = drawn[:], []
    again = small("TELL", augment=noise, random_state=0).fit(X)
    drawn.clear()
    for _ in range(3):
        again.partial_fit(X[:32], train_encoder=True)
    assert drawn == first


def test_a_callback_may_score_the_model_so_far(method, easy):
    X, _ = easy
    found = []

    class Ask(EarlyStopping):
        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            if fitted_estimator is not None:
                found.append((fitted_estimator.score(X), len(fitted_estimator.predict_proba(X))))

    model = small(method).set_callbacks(Ask()).fit(X)
    assert found or method == "AEKMeans"  # which has no joint training
    assert all(np.isfinite(score) and n == 240 for score, n in found)
    assert model.score(X) == pytest.approx(-model.loss_, rel=1e-4)


def test_torchs_modes_and_default_dtype_do_not_count(tmp_path, easy):
    X, _ = easy
    plain = small("KMeansNet").fit(X)
    plain.save(tmp_path / "model")
    with torch.inference_mode():
        assert np.array_equal(small("KMeansNet").fit(X).transform(X), plain.transform(X))
    torch.set_default_dtype(torch.float64)
    try:
        model = small("KMeansNet").fit(X)
        loaded = neuralclust.load(tmp_path / "model")
    finally:
        torch.set_default_dtype(torch.float32)
    for other in (model, loaded):
        assert np.array_equal(other.transform(X), plain.transform(X))


class Flaky(torch.utils.data.Dataset):
    """Rows that can be read some sixty times."""

    def __init__(self, X):
        self.X, self.reads = X, 0

    def __len__(self):
        return 40

    def __getitem__(self, row):
        self.reads += 1
        if self.reads > 60:
            raise OSError("the disk is gone")
        return torch.from_numpy(self.X[row])


def test_a_stream_that_fails_at_its_labels_changes_nothing(easy):
    X = easy[0].copy()
    model = small("AEKMeans", encoder=None).fit(X)
    before = weights(model)
    with pytest.raises(OSError, match="the disk is gone"):
        model.partial_fit(Flaky(X), forgetting=1.0)
    assert weights(model) == before


def test_a_stream_may_end_in_a_single_row(easy):
    X, _ = easy
    layers = torch.nn.Linear(16, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 4)
    model = small("KMeansNet", encoder=torch.nn.Sequential(*layers), batch_size=32).fit(X)
    assert len(model.partial_fit(X[:65], train_encoder=True).labels_) == 65


@pytest.mark.parametrize(("method", "params"), [("DCSAI", {"metric": "cosine"}), ("KMeansNet", {"alpha": 500.0})])
def test_a_stream_cannot_change_what_a_layer_was_made_with(easy, method, params):
    model = small(method, encoder=None).fit(easy[0]).set_params(**params)
    (name,) = params
    with pytest.raises(ValueError, match=f"{name}=.* was set after the fit"):
        model.partial_fit(easy[0])
