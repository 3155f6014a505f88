"""How much of what is new is folded before anybody else has a turn.

Owns what a fact costs: the more, the more predictions are open. Refuses to know whose turn it is (turns).
"""

from taximeter.agent.accounts import Account

#: So much is folded before anybody else has a turn: some 25 ms. It is counted in open predictions, since a mark may
#: settle the times of all that are; a fact counts as so many more.
TURN, FACT = 4_096, 8
#: Of so many predictions a cut is made before anybody else has a turn: some 6 ms.
AT_ONCE = 128
#: So many of the facts that are read at once may be starts, each of which makes one more.
_STARTS = 24
#: A run of some seconds says so much.
_RUN = 8


def cost(account: Account) -> int:
    """What a fact of this instance costs, as part of a TURN."""
    return FACT + account.open_predictions


def most_facts(account: Account, left: int) -> int:
    """How many of its facts may be taken, of what is left of a TURN; of one with little open as many as most runs say.

    Else the last of each turn would be read in two pieces, kept in the ledger in between, and synced for that.
    """
    return max(_RUN if cost(account) <= 2 * FACT else 1, left // (cost(account) + _STARTS))
