"""The synthetic marketplace: reproducible, and with the structure that its description promises."""

from collections import Counter

import polars as pl
import pytest

from common.errors import ConfigError
from simulations.anomalies import KINDS, inject
from simulations.synthetic import SyntheticMarket, SyntheticSpec, generate, site_sizes

SMALL = SyntheticSpec(sites=4, consumers=600, items=200, categories=12, tastes=6)


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return generate(SMALL, seed=5)


def test_the_same_seed_gives_the_same_events_and_another_seed_others(market: SyntheticMarket) -> None:
    assert generate(SMALL, seed=5).log.frame.equals(market.log.frame)
    assert not generate(SMALL, seed=6).log.frame.equals(market.log.frame)


def test_merchants_are_unequal_and_add_up(market: SyntheticMarket) -> None:
    sizes = site_sizes(SMALL)
    assert sizes.sum() == SMALL.consumers
    assert sizes[0] > 1.5 * sizes[-1]
    counted = market.log.frame.group_by("site").agg(pl.col("consumer").n_unique()).sort("site")
    assert counted["consumer"].to_list() == sizes.tolist()


def test_the_log_is_sorted_by_consumer_and_time(market: SyntheticMarket) -> None:
    frame = market.log.frame
    again = frame.sort("consumer", "timestamp", maintain_order=True)
    assert again.equals(frame)


def test_events_per_consumer_are_about_what_was_asked_for(market: SyntheticMarket) -> None:
    assert len(market.log) / SMALL.consumers == pytest.approx(SMALL.events_per_consumer, rel=0.1)


def test_the_funnel_narrows_and_every_purchase_was_in_the_cart(market: SyntheticMarket) -> None:
    frame = market.log.frame
    count = Counter(frame["event"].to_list())
    assert count["view"] > count["cart"] > count["purchase"] > count["review"] > count["cancel"] > 0
    assert min(count[name] for name in ("login", "search", "favourite")) > 0
    before = frame.select(
        pl.col("event").shift(1).alias("event"), pl.col("item").shift(1).alias("item"), pl.col("consumer").shift(1)
    ).filter(frame["event"] == "purchase")
    bought = frame.filter(pl.col("event") == "purchase")
    assert (before["event"] == "cart").all()
    assert before["item"].equals(bought["item"])
    assert before["consumer"].equals(bought["consumer"])


def test_reviews_and_cancellations_follow_a_purchase_of_that_item(market: SyntheticMarket) -> None:
    frame = market.log.frame
    bought = set(frame.filter(pl.col("event") == "purchase").select("consumer", "item").iter_rows())
    after = frame.filter(pl.col("event").is_in(["review", "cancel"]))
    assert set(after.select("consumer", "item").iter_rows()) <= bought


def test_a_merchant_sells_only_what_it_stocks(market: SyntheticMarket) -> None:
    for site in market.log.sites:
        sold = market.catalogue.item_index(market.log.at_site(site).frame["item"].drop_nulls())
        assert (sold > 0).all()
        assert market.catalogue.mask(site)[sold].all()
        assert 0.6 < market.catalogue.mask(site).mean() < 0.95


def test_popularity_has_a_long_tail(market: SyntheticMarket) -> None:
    counts = market.log.frame["item"].drop_nulls().value_counts(sort=True)["count"].to_numpy()
    assert counts[:20].sum() > 3 * counts[-100:].sum()


def test_a_search_announces_the_category_of_the_next_item(market: SyntheticMarket) -> None:
    frame = market.log.frame
    later = frame["category"].shift(-1)
    searched = frame["event"] == "search"
    assert (frame["category"].filter(searched) == later.filter(searched)).all()
    assert frame["item"].filter(searched).null_count() == searched.sum()


def test_some_items_follow_others_far_more_often_than_by_chance(market: SyntheticMarket) -> None:
    views = market.log.frame.filter(pl.col("event") == "view")
    pairs = views.select("item", pl.col("item").shift(-1).over("consumer").alias("next")).drop_nulls()
    pairs = pairs.filter(pl.col("item") != pl.col("next"))
    popular = pairs["next"].value_counts(sort=True).head(3)["count"].sum() / pairs.height
    by_item = pairs.group_by("item", "next").len().sort("len", descending=True)
    best_three = by_item.group_by("item", maintain_order=True).head(3)["len"].sum() / pairs.height
    assert best_three > 2 * popular  # three by chance alone would be the popular ones


def test_tastes_drift_when_asked_to() -> None:
    def turnover(drift: float) -> float:
        spec = SyntheticSpec(sites=1, consumers=800, items=200, categories=12, tastes=6, drift=drift)
        frame = generate(spec, seed=1).log.frame.filter(pl.col("event") == "view")
        place = pl.int_range(pl.len()).over("consumer") / pl.len().over("consumer")
        frame = frame.with_columns(place.alias("place"))
        early = frame.filter(pl.col("place") < 0.25).group_by("consumer").agg(pl.col("category").mode().first())
        late = frame.filter(pl.col("place") >= 0.75).group_by("consumer").agg(pl.col("category").mode().first())
        both = early.join(late, on="consumer", suffix="_late")
        return float((both["category"] != both["category_late"]).sum()) / both.height

    assert turnover(1.0) > turnover(0.0) + 0.1


def test_overlap_shows_consumers_at_several_merchants_each_once_per_merchant() -> None:
    none, much = (
        generate(SyntheticSpec(sites=4, consumers=400, items=100, categories=8, tastes=4, overlap=o), seed=2)
        for o in (0.0, 0.8)
    )
    homes = [
        m.log.frame.select("consumer", "site").unique()["consumer"].value_counts()["count"] for m in (none, much)
    ]
    assert homes[0].max() == 1
    assert (homes[1] > 1).sum() > 50
    assert much.log.frame.select("consumer", "site").unique().height == 400
    assert much.log.frame["consumer"].is_sorted()


def test_sessions_of_a_person_do_not_interleave() -> None:
    log = generate(SyntheticSpec(sites=1, consumers=50, items=60, events_per_consumer=200.0, days=30), seed=3).log
    gaps = log.frame.select(pl.col("timestamp").diff().over("consumer"))["timestamp"].drop_nulls()
    assert gaps.min() is not None
    assert gaps.dt.total_seconds().min() >= 1  # type: ignore[operator]


@pytest.mark.parametrize(
    "wrong",
    [
        {"sites": 0},
        {"sites": 9, "consumers": 8},
        {"items": 10, "categories": 12},
        {"events_per_consumer": 1.0},
        {"days": 0},
        {"overlap": 1.5},
        {"anomalies": -0.1},
    ],
)
def test_an_impossible_marketplace_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SyntheticSpec(**wrong)  # type: ignore[arg-type]


def test_one_consumer_at_one_site_is_possible() -> None:
    assert len(generate(SyntheticSpec(sites=1, consumers=1, items=40), seed=1).log.consumers) == 1


def test_injected_anomalies_are_labelled_and_leave_genuine_events_alone(market: SyntheticMarket) -> None:
    log, labels = inject(market.log, 0.1, seed=9)
    assert set(labels["kind"]) == set(KINDS)
    assert labels["consumer"].n_unique() == labels.height
    assert 0.06 < labels.height / SMALL.consumers < 0.14
    spans = log.frame.join(labels.drop("site"), on="consumer", how="left")
    inside = (pl.col("timestamp") >= pl.col("begin")) & (pl.col("timestamp") <= pl.col("end"))
    genuine = spans.filter(~inside.fill_null(value=False)).select(market.log.frame.columns)
    assert genuine.equals(market.log.frame)
    assert inject(market.log, 0.1, seed=9)[1].equals(labels)


def test_each_kind_of_anomaly_behaves_as_described(market: SyntheticMarket) -> None:
    for kind in KINDS:
        log, labels = inject(market.log, 0.1, seed=4, kinds=(kind,))
        spans = log.frame.join(labels.drop("site"), on="consumer")
        burst = spans.filter((pl.col("timestamp") >= pl.col("begin")) & (pl.col("timestamp") <= pl.col("end")))
        seen = set(burst["event"].cast(pl.String))
        items = burst.group_by("consumer").agg(pl.col("item").n_unique())["item"]
        seconds = (labels["end"] - labels["begin"]).dt.total_seconds().to_numpy() / burst.group_by(
            "consumer", maintain_order=True
        ).len()["len"].to_numpy()
        assert (
            seen
            == {
                "account-takeover": {"view", "cart", "purchase"},
                "bot": {"view"},
                "brushing": {"cart", "purchase", "review"},
                "fake-reviews": {"review"},
            }[kind]
        )
        assert (items.max() == 1) == (kind == "brushing")
        assert (seconds.max() <= 1.0) == (kind == "bot")


def test_no_share_no_anomaly_and_a_wrong_kind_is_refused(market: SyntheticMarket) -> None:
    log, labels = inject(market.log, 0.0, seed=1)
    assert log is market.log
    assert labels.height == 0
    with pytest.raises(ConfigError, match="burglary"):
        inject(market.log, 0.1, seed=1, kinds=("burglary",))


def test_the_generator_gives_labels_when_asked_for_anomalies() -> None:
    spec = SyntheticSpec(sites=2, consumers=300, items=80, categories=8, tastes=4, anomalies=0.1)
    made = generate(spec, seed=1)
    assert made.labels.height > 10
    assert set(made.labels["site"]) <= set(made.log.sites)
    assert set(made.labels["consumer"]) <= set(made.log.consumers.tolist())


@pytest.mark.full
def test_history_and_searches_hold_more_than_popularity() -> None:
    """What a sequence model can find, at the default constants and 20 guesses, where the item changes."""
    frame = generate(SyntheticSpec(consumers=4_000), seed=1).log.frame
    views = frame.filter(pl.col("event") == "view")
    popular = views["item"].value_counts(sort=True)["item"].head(20)
    assert views["item"].is_in(popular.implode()).mean() < 0.3  # type: ignore[operator]
    times = frame.drop_nulls("item").select(pl.int_range(pl.len()).over("consumer", "item"))
    assert (times.to_series() > 0).mean() > 0.4  # type: ignore[operator]
    heads = views.group_by("category", "item").len().sort("len", descending=True)
    heads = (
        heads.group_by("category")
        .head(20)
        .select("category", "item")
        .with_columns(pl.lit(value=True).alias("hit"))
    )
    searched = frame.with_columns(pl.col("event").shift(1).over("consumer").alias("before"))
    searched = searched.filter((pl.col("before") == "search") & (pl.col("event") == "view"))
    assert searched.join(heads, on=["category", "item"], how="left")["hit"].count() > 0.8 * searched.height
