"""What a prediction's dues say beside money: how much hardware time is paid for by them, and why they are nothing.

Pure, of totals as dues are. Refuses to know how a pool's time is added up, and what a record looks like.
"""

from decimal import Decimal

from taximeter.billing.dues import Dues
from taximeter.billing.money import EXACT, seconds
from taximeter.billing.readings import Totals
from taximeter.billing.tariffs import Sale

_ZERO = Decimal(0)


def sold_ns(due: Dues, busy_ns: int) -> int:
    """How much hardware time somebody pays for, at the full price: at half the price half of it counts.

    By whatever meter: of a run that is priced by what it counts, all the time that it was busy; loading where there is
    a line of it.
    """
    if due.reason is not None:
        return 0
    load, busy = _ZERO, _ZERO
    for item, quantity in zip(due.tariff.items, due.quantities, strict=True):
        if quantity and item.is_load:
            load = EXACT.multiply(quantity, item.multiplier)
        elif quantity:
            busy = EXACT.multiply(seconds(busy_ns), item.multiplier)
    return int(EXACT.scaleb(EXACT.add(load, busy), 9).to_integral_value())


def why_nothing(sale: Sale, totals: Totals) -> str:
    """Why nothing more is due for totals that do have a price."""
    if not (totals.busy_ns or totals.load_ns):
        return "it took no time"
    if not sale.terms.on(sale.status):
        return f"its class bills nothing of a run that is {sale.status}"
    if sale.model is not None and not sale.model.billable:
        return "its model is not billed"
    if not totals.processed:
        return "it never processed"
    if not sale.terms.active:
        return "its class bills no active time"
    return "nothing that has a price was used or counted since"
