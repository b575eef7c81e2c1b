"""The packet language: which packets, when, then what. Pure; compiled to nftables text.

A rule is a selector, a schedule and an action, each a frozen value with one YAML form. The same
rule says on paper which frames it acts on (`Rule.hit`) and in the kernel (`Rule.nft`). A `When` is
a schedule, and the times within a fault at which a rule is in force.
"""

from chaos.packets.action import Action
from chaos.packets.chance import Bursts, Chance
from chaos.packets.numbers import Numbers
from chaos.packets.rule import Rule
from chaos.packets.schedule import After, All, Every, First, Psn, Schedule
from chaos.packets.selector import Selector, select
from chaos.packets.view import View, matches
from chaos.packets.when import When

__all__ = [
    "Action",
    "After",
    "All",
    "Bursts",
    "Chance",
    "Every",
    "First",
    "Numbers",
    "Psn",
    "Rule",
    "Schedule",
    "Selector",
    "View",
    "When",
    "matches",
    "select",
]
