"""Ratings a second on one core: what one prediction's record costs, from its totals to its lines, by kind of price.

A rating is all that pricing does for one record: which price holds, the totals at it, the lines and their sum, by the
time of the processor that it takes. What else a record takes is in agent_throughput.py.

    python benchmarks/rating_rate.py [--ratings 100000] [--rounds 5]
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from interpreter import describe

from taximeter.billing.classes import Quantity, Terms
from taximeter.billing.dues import dues, dues_by
from taximeter.billing.rates import RateCard, parse_card
from taximeter.billing.rating import rate
from taximeter.billing.readings import Totals
from taximeter.billing.tariffs import Offer, Sale
from taximeter.events import Status

GOAL = 100_000
SECOND_NS = 1_000_000_000
ZERO, ONE = Decimal(0), Decimal(1)
TERMS = Terms(ZERO, ZERO, ZERO, ONE, ZERO, ONE, ONE, ZERO, Quantity.SHARE)
TOKENS = [
    {"counts": "token_input", "unit": "million_token", "amount": "3"},
    {"counts": "token_output", "unit": "million_token", "amount": "15"},
]
MODELS: Mapping[str, dict[str, Any] | None] = {
    "time at the tier's price": None,
    "an image": {"unit": "image", "amount": "0.03"},
    "tokens in and out apart": {"prices": TOKENS},
    "an image by a criterion, plus hardware": {
        "unit": "image",
        "amount": "0.03",
        "plus_hardware": True,
        "criterias": [{"field": "resolution", "operator": "==", "value": "4k", "amount": "0.12"}],
    },
}


def card_with(model: dict[str, Any] | None) -> RateCard:
    """A card that prices that model."""
    said: dict[str, object] = {"version": "b", "effective": "2026-01-01T00:00:00Z", "currency": "USD"}
    models = [] if model is None else [{"name": "m", **model}]
    return parse_card({**said, "tiers": {"gpu-h100": "0.001525"}, "models": models}, "benchmark")


def timed(card: RateCard, cut: bool, ratings: int) -> float:
    """Ratings a second of a run; `cut`: of its last record, after an interim one."""
    offer = Offer(Sale(card, card.model("m"), TERMS, Status.SUCCEEDED, "gpu-h100", 1, {}))
    attributes = {"resolution": "4k"}
    before = Totals(0, 60 * SECOND_NS, {"image": "1", "token_input": "1200"}, processed=True, ended=False)
    counts = [
        {"image": str(2 + n % 7), "token_input": str(1201 + n * 31), "token_output": str(n * 17)} for n in range(997)
    ]
    began_ns = time.thread_time_ns()
    for number in range(ratings):
        totals = Totals(0, 61 * SECOND_NS + number * 7_919, counts[number % 997], processed=True, ended=True)
        tariff = offer.tariff(attributes)
        if cut:
            due = billed = dues_by(tariff, before)
            if not offer.as_before("gpu-h100", 1):
                billed = dues(offer.sale._replace(status=Status.PROCESSING), before)
            rate(dues_by(tariff, totals), due, billed)
        else:
            rate(dues_by(tariff, totals))
    return ratings * 1e9 / (time.thread_time_ns() - began_ns)


def main() -> None:
    """Print a table; say where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    told = parser.parse_args()
    print(f"{describe()}; {told.ratings} ratings, median of {told.rounds} rounds")
    print(f"{'a rating of':<40}{'whole run':>12}{'after a cut':>14}   a second on one core")
    for name, model in MODELS.items():
        card = card_with(model)
        whole, cut = (
            statistics.median(timed(card, is_cut, told.ratings) for _ in range(told.rounds)) for is_cut in (False, True)
        )
        print(f"{name:<40}{whole:>12,.0f}{cut:>14,.0f}{'' if min(whole, cut) >= GOAL else f'   (goal {GOAL:,})'}")


if __name__ == "__main__":
    main()
