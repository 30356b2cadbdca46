"""Records: the documents that commands make and change, besides wallets and entries.

An id's prefix tells the kind of a record, and so its collection. `version` counts the changes of those that change:
each change names the version that it was decided on.
"""

from typing import NamedTuple

from service.domain.adjustments import Adjustment
from service.domain.audit_events import AuditEvent
from service.domain.conversions import Conversion
from service.domain.day_sums import DaySum
from service.domain.holds import Hold
from service.domain.incidents import Incident
from service.domain.operations import Operation
from service.domain.quotes import Quote
from service.domain.returns import Return
from service.domain.reversals import Reversal
from service.domain.rewards import Reward
from service.domain.transfers import Transfer
from service.domain.user_limits import UserLimits
from service.domain.vouchers import Redemption, Voucher, VoucherUse

Record = (
    Operation
    | Transfer
    | Hold
    | Adjustment
    | Reversal
    | Quote
    | Conversion
    | Reward
    | Voucher
    | VoucherUse
    | Redemption
    | AuditEvent
    | Return
    | Incident
    | UserLimits
    | DaySum
)

# What is made under a client's key, and would be made again without a trace of the key: it has a `tombstone`.
# Conversions and reversals need none: their quote and their original are used up.
Marked = Operation | Transfer | Hold | Adjustment | Redemption


class RecordUpdate(NamedTuple):
    before: Record
    after: Record
