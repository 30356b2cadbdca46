"""On paper: all nouns together."""

from collections.abc import Mapping, Sequence

from tests.model.books import Person, Purse
from tests.model.outcomes import OutcomePaper


class LedgerPaper(OutcomePaper):
    def open(self, users: Sequence[str], purses: Mapping[str, tuple[str, str]]) -> None:
        """Empty purses by name, with owner and currency."""
        self.earnings = []
        self.debts_at_most = 1
        self.people = dict.fromkeys(users, 0)
        self.persons = {user: Person() for user in users}
        self.purses = {name: Purse(owner=owner, currency=currency) for name, (owner, currency) in purses.items()}
