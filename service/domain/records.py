"""Records: the documents that commands make and change, besides wallets and entries.

An id's prefix tells the kind of a record, and so its collection. `version` counts the changes of those that change:
each change names the version that it was decided on.
"""

from typing import NamedTuple

from service.domain.operations import Operation
from service.domain.rewards import Reward
from service.domain.transfers import Transfer
from service.domain.vouchers import Redemption, Voucher, VoucherUse

Record = Operation | Transfer | Reward | Voucher | VoucherUse | Redemption


class RecordUpdate(NamedTuple):
    before: Record
    after: Record
