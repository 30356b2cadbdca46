"""System accounts: the other side of every movement that is not between two wallets.

They have no document of their own, which every transaction would fight for: an account's balance is what the entries
that name it as counterparty took out of wallets, less what they put in.
"""

from enum import StrEnum


class SystemAccount(StrEnum):
    BANK = "bank"
    FX = "house:fx"
    REWARDS = "house:rewards"
    ADJUSTMENTS = "house:adjustments"
    # What holds without a recipient are captured to: a purchase from the house itself.
    REVENUE = "house:revenue"
